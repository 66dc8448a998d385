package credential

import (
	"crypto/sha256"
	"time"

	"github.com/chancery-mesh/chancery/internal/memory"
)

// Cache remembers verified tokens until they expire. It is bounded, and safe for
// concurrent use. Tokens that are refused are not kept, so nobody without a
// valid one can push others out.
//
// What is kept depends on the token and on everything about its [Verifier], so
// a provider's removed key or changed audience is honoured at once.
type Cache struct{ tokens *memory.Memory[*Identity] }

// NewCache returns a cache for about size tokens.
func NewCache(size int) *Cache { return &Cache{memory.New[*Identity](size)} }

// Verify is [Verifier.Verify] with memory.
func (c *Cache) Verify(v *Verifier, token string, now time.Time, peer *Certificate) (*Identity, error) {
	if len(token) > MaxTokenSize {
		return nil, Malformed
	}
	key := v.cacheKey(token)
	id, known := c.tokens.Get(&key, now)
	if !known {
		var err error
		if id, err = v.verify(token, now); err != nil {
			return nil, err
		}
		// What the identity holds are parts of the claims.
		c.tokens.Put(key, id, id.ValidUntil, len(token), now)
	}
	return id.ShownBy(peer)
}

// cacheKey begins with a digest of fixed length, so nothing can be moved
// between the two parts.
func (v *Verifier) cacheKey(token string) [sha256.Size]byte {
	buf := make([]byte, 0, 2048)
	return sha256.Sum256(append(append(buf, v.digest[:]...), token...))
}
