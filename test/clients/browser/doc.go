// Package browser drives the owner's page in Chromium: what a person sees and presses there,
// on a network of namespaces with real clients. It is a module of its own, so that what
// it needs is no dependency of the program.
package browser
