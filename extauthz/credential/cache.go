package credential

import (
	"crypto/sha256"
	"encoding/binary"
	"sync/atomic"
	"time"
)

// Cache remembers verified tokens until they expire. It is bounded, and reading
// it takes no lock: a token has a few places where it may be, and a new one
// takes the place of another when all are taken. Tokens that are refused are
// not kept, so nobody without a valid one can push others out.
//
// What is kept depends on the token and on everything about its [Verifier], so
// a provider's removed key or changed audience is honoured at once.
type Cache struct{ buckets []bucket }

type bucket [4]atomic.Pointer[entry]

type entry struct {
	key [sha256.Size]byte
	id  *Identity
}

// NewCache returns a cache for about size tokens.
func NewCache(size int) *Cache {
	return &Cache{buckets: make([]bucket, max(1, size/len(bucket{})))}
}

// Verify is [Verifier.Verify] with memory.
func (c *Cache) Verify(v *Verifier, token string, now time.Time) (*Identity, error) {
	if len(token) > MaxTokenSize {
		return nil, Malformed
	}
	key := v.cacheKey(token)
	b := &c.buckets[binary.BigEndian.Uint64(key[:])%uint64(len(c.buckets))]
	for i := range b {
		if e := b[i].Load(); e != nil && e.key == key && !now.After(e.id.ValidUntil) {
			return e.id, nil
		}
	}
	id, err := v.Verify(token, now)
	if err == nil {
		b.put(&entry{key, id}, now)
	}
	return id, err
}

// cacheKey begins with a digest of fixed length, so nothing can be moved
// between the two parts.
func (v *Verifier) cacheKey(token string) [sha256.Size]byte {
	buf := make([]byte, 0, 2048)
	return sha256.Sum256(append(append(buf, v.digest[:]...), token...))
}

// put prefers a free place; otherwise the key picks one, which is as good as
// chance.
func (b *bucket) put(e *entry, now time.Time) {
	place := &b[e.key[8]%uint8(len(b))]
	for i := range b {
		if old := b[i].Load(); old == nil || now.After(old.id.ValidUntil) {
			place = &b[i]
			break
		}
	}
	place.Store(e)
}
