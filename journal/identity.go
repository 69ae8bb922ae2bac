package journal

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
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

// ErrDamaged says that the file was there and made no sense.
var ErrDamaged = errors.New("damaged")

// NewIdentity makes one that was never used.
func NewIdentity() Identity { return Identity{UUID: newUUID(), Path: newPath()} }

// LoadIdentity reads the identity in dir, or makes a new one where there is
// none. With ErrDamaged, too, the identity is a new one, to be saved. One that was
// written before there was a Path gets one.
func LoadIdentity(dir string) (Identity, error) {
	path := filepath.Join(dir, identityFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return NewIdentity(), nil
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
		return NewIdentity(), fmt.Errorf("%s: %w", path, ErrDamaged)
	}
	return id, nil
}

// IdentityKept reports whether dir holds an identity, or at least nobody can tell.
func IdentityKept(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, identityFile))
	return !errors.Is(err, fs.ErrNotExist)
}

// Save writes the identity so that after a power loss the file is the old one
// or the new one, never a part.
func (id Identity) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("save the identity: %w", err)
	}
	data, err := json.Marshal(id)
	if err != nil {
		return fmt.Errorf("save the identity: %w", err)
	}
	return replaceFile(filepath.Join(dir, identityFile), append(data, '\n'))
}

// replaceFile writes path by way of a temporary file, synced before it takes
// the old one's name.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}

func newPath() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // as below
	return hex.EncodeToString(b[:])
}

// newUUID gives a random UUID, version 4 (RFC 9562 section 5.4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
