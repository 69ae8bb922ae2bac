// Package slog is structured logging by the names and in the forms of log/slog, of which this is
// the part that we use.
//
// Owns: Logger, what is handed to a Handler, and the two handlers that write lines: words of
// key=value, and JSON.
//
// May import: the standard library, without log/slog; of ours internal/json.
//
// Never: decides what is logged, keeps a logger for all, says where in the source it was called.
//
// What is decided here: log/slog has a default logger, which brings encoding/json into whatever
// imports it, 0.2 MB in all. Names are those of log/slog, and so are the lines, which a test checks;
// only a DEL is quoted in text here. There are no groups, and no values that are made when they are
// wanted.
package slog
