package journal

import "portcullis/portmap"

// What the tests reach beyond the package's face.
type (
	Disk = disk
	File = file
)

// The file names, and what a client's renewals may add.
const (
	JournalFile = journalFile
	NewFile     = journalFile + newSuffix
	RenewSlack  = renewSlack
	NoteEvery   = noteEvery
)

// OpenOn is Open on another disk.
func OpenOn(cfg Config, d Disk) (*Journal, Restored, error) { return open(cfg, d) }

// Tick does what Run does once a second.
func (j *Journal) Tick() { j.tick() }

// Size is the size of the file.
func (j *Journal) Size() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.size
}

// Compact replaces the file whatever its size.
func (j *Journal) Compact() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.rewrite(j.clock.Moment())
}

// Recode decodes one line and writes it again.
func Recode(b []byte) (string, error) {
	l, err := decodeLine(b)
	if err != nil {
		return "", err
	}
	again := appendLine(nil, l.seq, l.synced, l.at, l.text())
	return string(again[:len(again)-1]), nil
}

// Line returns a line with a right checksum.
func Line(seq, synced uint64, at int64, text string) string {
	return string(appendLine(nil, seq, synced, at, text))
}

// Check is what every mapping that is read or written has to pass.
func Check(m *portmap.Mapping) error { return check(m) }
