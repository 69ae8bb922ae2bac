// Package refusals remembers what was refused lately, device by device, for the owner who
// looks why a program does not get its port.
//
// Owns: Book (the last requests of each device that were refused, and how often), and which
// of them are forgotten when there are too many.
//
// May import: the standard library; of ours portmap.
//
// Never: decides anything, writes to disk.
//
// What is decided here:
//   - 64 devices with 8 requests each, 1.1 MB if all their texts are as long as can be. A device that asks for every
//     port forgets its own requests and nobody else's; one that makes up devices
//     (abuse case K1) takes the places of those that have not answered the gateway first,
//     and then those of its own LAN.
//   - What is opened after all is forgotten: nobody has to look why, and the log keeps it.
package refusals
