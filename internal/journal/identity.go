package journal

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"

	"portcullis/internal/json"
	"portcullis/internal/random"
)

// Identity is what control points know the gateway by across restarts.
type Identity struct {
	// UUID is the gateway's own, in the 8-4-4-4-12 form. It is random: made from
	// nothing that tells about the machine (abuse case K6).
	UUID string `json:"uuid"`
	// Path is the part of every URL that nobody can guess (abuse case D5), 24 hex
	// digits. It stays, because control points keep URLs: with another one they can
	// neither renew nor end what they have opened.
	Path string `json:"path"`
	// BootID is the last BOOTID.UPNP.ORG that was used, 0 for none.
	BootID uint32 `json:"boot_id"`
}

const identityFile = "identity.json"

var (
	uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	pathForm = regexp.MustCompile(`^[0-9a-f]{24}$`)
)

// ErrDamaged means that the file was there and made no sense.
var ErrDamaged = errors.New("damaged")

// NewIdentity returns one that was never used.
func NewIdentity() Identity { return Identity{UUID: newUUID(), Path: newPath()} }

// Identity reads the identity, or makes a new one where there is none. With an error,
// too, the identity is a new one, to be saved. One that was written before there was a
// Path gets one.
func (j *Journal) Identity() (Identity, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return NewIdentity(), ErrClosed
	}
	f, _, err := j.disk.Open(identityFile)
	if errors.Is(err, fs.ErrNotExist) {
		return NewIdentity(), nil
	}
	var data []byte
	if err == nil {
		data, err = io.ReadAll(io.LimitReader(f, maxLine))
		_ = f.Close()
	}
	if err != nil {
		return NewIdentity(), fmt.Errorf("read the identity: %w", err)
	}
	var id Identity
	err = json.Unmarshal(data, &id)
	if id.Path == "" {
		id.Path = newPath()
	}
	if err != nil || !uuidForm.MatchString(id.UUID) || !pathForm.MatchString(id.Path) || id.BootID >= 1<<31 {
		return NewIdentity(), fmt.Errorf("%s: %w", identityFile, ErrDamaged)
	}
	return id, nil
}

// HasIdentity reports whether there is an identity on disk, or at least nobody can
// tell.
func (j *Journal) HasIdentity() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || j.disk.Return() != nil {
		return true
	}
	f, _, err := j.disk.Open(identityFile)
	if err == nil {
		_ = f.Close()
	}
	return !errors.Is(err, fs.ErrNotExist)
}

// SaveIdentity writes the identity so that after a power loss the file is the old one
// or the new one, never a part.
func (j *Journal) SaveIdentity(id Identity) error {
	data, err := json.Marshal(id)
	if err != nil {
		return fmt.Errorf("save the identity: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return ErrClosed
	}
	f, err := replace(j.disk, identityFile, append(data, '\n'))
	if f != nil {
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("save the identity: %w", err)
	}
	return nil
}

func newPath() string {
	var b [12]byte
	random.Fill(b[:])
	return hex.EncodeToString(b[:])
}

// newUUID returns a random UUID, version 4 (RFC 9562 section 5.4).
func newUUID() string {
	var b [16]byte
	random.Fill(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
