// Command cases prints each case of docs/abuse-cases.md: how it is answered, what was
// proved, and by which tests. It fails if a test of a case failed, was skipped or did not
// run, and if a case lacks the proof that nothing changed and the document does not say
// how it is proved otherwise.
//
//	cases                     runs the tests that the document names, and prints
//	cases FILE...             prints what earlier runs, recorded in the files, have shown
//	cases -record FILE ARGS   runs go test ARGS, prints what it would, and records it
//
// The proofs are lines that tests log (rig.Unchanged) when the mapping table, the kernel's
// rules and elements, the flows through the gateway and the journal are after a refusal
// what they were before. A proof counts for the cases that its line names, and for those
// that a part of the test's name begins with.
package main
