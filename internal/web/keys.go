package web

import (
	"encoding/base64"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"portcullis/internal/digest"
	"portcullis/internal/random"
)

// HashSize is that of Hash, in octets.
const HashSize = digest.Size

// Hash returns what is kept of a secret: memory that leaks gives none away.
func Hash(secret string) [HashSize]byte { return digest.Sum([]byte(secret)) }

// How long and how often.
const (
	linkTime     = 15 * time.Minute
	idleTime     = 12 * time.Hour // of a session that nobody uses
	sessionTime  = 7 * 24 * time.Hour
	maxSessions  = 8
	maxTries     = 20 // to sign in, at once
	triesEvery   = time.Second
	secretOctets = 24 // at random
)

// keys are who is signed in, and who may.
type keys struct {
	mu       sync.Mutex
	link     [HashSize]byte // guarded by mu; of the word that is good once
	until    time.Time      // guarded by mu; the link is void from then on, and when spent
	tries    *rate.Limiter
	sessions map[[HashSize]byte]*session // by the hash of its cookie; guarded by mu
}

// session is somebody who is signed in.
type session struct {
	key         [HashSize]byte
	begun, seen time.Time
}

func newKeys() keys {
	return keys{tries: rate.NewLimiter(rate.Every(triesEvery), maxTries), sessions: make(map[[HashSize]byte]*session)}
}

// offer makes the word with this hash good for one sign-in, and no other.
func (k *keys) offer(hash [HashSize]byte, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.link, k.until = hash, now.Add(linkTime)
}

// paced reports whether another guess is answered as one now.
func (k *keys) paced(now time.Time) bool { return k.tries.AllowN(now, 1) }

// spend begins a session for who has the word of the link, which is void then, and returns
// the two secrets by which it is known.
func (k *keys) spend(word string, now time.Time) (cookie, key string, ok bool) {
	hash := Hash(word)
	k.mu.Lock()
	defer k.mu.Unlock()
	if !digest.Equal(hash, k.link) || !now.Before(k.until) {
		return "", "", false
	}
	k.until = time.Time{}
	k.forget(now)
	for len(k.sessions) >= maxSessions {
		k.forgetOldest()
	}
	cookie, key = secret(), secret()
	k.sessions[Hash(cookie)] = &session{key: Hash(key), begun: now, seen: now}
	return cookie, key, true
}

func secret() string {
	b := make([]byte, secretOctets)
	random.Fill(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

// forget ends the sessions whose time is over.
func (k *keys) forget(now time.Time) {
	for id, s := range k.sessions {
		if now.Sub(s.seen) >= idleTime || now.Sub(s.begun) >= sessionTime {
			delete(k.sessions, id)
		}
	}
}

// forgetOldest ends the session that was used least recently.
func (k *keys) forgetOldest() {
	var oldest [HashSize]byte
	var seen time.Time
	for id, s := range k.sessions {
		if seen.IsZero() || s.seen.Before(seen) {
			oldest, seen = id, s.seen
		}
	}
	delete(k.sessions, oldest)
}

// known reports whether both secrets are those of a session, which has been used then.
func (k *keys) known(cookie, key string, now time.Time) bool {
	hash := Hash(key)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forget(now)
	s := k.sessions[Hash(cookie)]
	if s == nil || !digest.Equal(hash, s.key) {
		return false
	}
	s.seen = now
	return true
}

// end ends the session of a cookie.
func (k *keys) end(cookie string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.sessions, Hash(cookie))
}
