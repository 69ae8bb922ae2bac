// Package config turns the owner's TOML file into a typed Config.
//
// Owns: the keys, their defaults and their ranges; the strictness of the file
// (an unknown key is an error, and so is every value that cannot be honoured);
// errors as "file:line: what; what is allowed"; the effective configuration
// that `portcullis check` prints.
//
// May import: slog, the standard library, BurntSushi/toml, portmap for the words of the
// vocabulary, policy for the Rule that a [[rule]] is, firewall (the model, which is
// pure) for the Chain that accept_chain names, special for which addresses are public,
// digest, and nearest for the word that was meant.
//
// Never: looks at the system (interfaces, addresses, groups, other files), logs,
// decides about a request, or lets a file pass in part: a file with one error
// yields no Config at all (abuse case C13).
package config
