package journal

import (
	"errors"
	"fmt"
	"io"
)

const (
	answersFile = "approvals.json"
	maxAnswers  = 8 << 20 // octets of that file
)

// Answers returns the file of what the owner has answered, as SaveAnswers was given it. The
// error is fs.ErrNotExist where there is none.
func (j *Journal) Answers() ([]byte, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil, ErrClosed
	}
	f, _, err := j.disk.Open(answersFile)
	if err != nil {
		return nil, fmt.Errorf("read the approvals: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxAnswers))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read the approvals: %w", err)
	}
	return data, nil
}

// SaveAnswers writes that file so that after a power loss it is the old one or the new one,
// never a part. When it returns nil the new one is on the disk.
func (j *Journal) SaveAnswers(data []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return ErrClosed
	}
	f, err := replace(j.disk, answersFile, data)
	if f != nil {
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("save the approvals: %w", err)
	}
	return nil
}

// SetAnswersAside gives that file another name, which it returns, so that the owner can look
// at what makes no sense.
func (j *Journal) SetAnswersAside() (string, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return "", ErrClosed
	}
	const aside = answersFile + ".damaged"
	if err := j.disk.Rename(answersFile, aside); err != nil {
		return "", err
	}
	return aside, j.disk.Sync()
}
