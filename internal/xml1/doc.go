// Package xml1 reads XML 1.0 as one strict, small document, and writes text into one.
// encoding/xml is made for documents of any size and for Go's structs: it brings reflection
// and the tables of all letters, and takes what has to be refused again behind it.
//
// Owns: what is well-formed (XML 1.0, fifth edition, and Namespaces in XML 1.0), and how
// deep and wide a document may be; which characters of a text are escaped.
//
// May import: the standard library, without encoding/xml.
//
// Never: knows a document by its names, does I/O, follows or declares an entity.
//
// What is decided here:
//   - A document is read whole from memory, in UTF-8. Names and texts are parts of one
//     string; who keeps one for long copies it.
//   - DOCTYPE and every processing instruction but the XML declaration are refused, and so
//     are all entities but the five that XML has (section 4.6).
//   - Names are of ASCII. UPnP has no others, and the letters of the whole world are a table
//     of their own.
//   - Attributes may follow each other without a blank, which section 3.1 wants, and the
//     declaration may leave the version out: texts that programs put together by hand lose
//     either easily, nobody reads them otherwise, and encoding/xml takes both.
//   - A prefix that nobody has declared is no error: a reader may have to look past one
//     (case ODD-2).
//   - All else is narrower than encoding/xml or the same: what is accepted here, that accepts,
//     and reads alike. A fuzz target holds it to that.
package xml1
