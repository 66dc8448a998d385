package credential

import (
	"crypto/sha256"
	"errors"
	"time"

	"github.com/chancery-mesh/chancery/internal/memory"
)

// Cache remembers verified tokens until they expire. It is bounded, and safe for
// concurrent use. Tokens whose signature is bad are remembered, too, so that
// whoever sends one again and again costs little; but apart, so nobody without
// a valid one can push others out.
//
// What is kept depends on the token and on everything about its [Verifier], so
// a provider's removed key or changed audience is honoured at once.
type Cache struct {
	tokens *memory.Memory[*Identity]
	forged *memory.Memory[struct{}]
}

const (
	// maxForged is how many bad signatures are remembered, for rememberForged.
	maxForged      = 1024
	rememberForged = time.Minute
)

// NewCache returns a cache for about size tokens.
func NewCache(size int) *Cache {
	return &Cache{memory.New[*Identity](size), memory.New[struct{}](maxForged)}
}

// Verify is [Verifier.Verify] with memory.
func (c *Cache) Verify(v *Verifier, token string, now time.Time, peer *Certificate) (*Identity, error) {
	if len(token) > MaxTokenSize {
		return nil, Malformed
	}
	key := v.cacheKey(token)
	if id, known := c.tokens.Get(&key, now); known {
		return id.ShownBy(peer)
	}
	if _, known := c.forged.Get(&key, now); known {
		return nil, BadSignature
	}
	id, err := v.verify(token, now)
	switch {
	case errors.Is(err, BadSignature):
		c.forged.Put(key, struct{}{}, earlier(now.Add(rememberForged), id.ValidUntil), sha256.Size, now)
		return nil, err
	case err != nil:
		return nil, err
	}
	// What the identity holds are parts of the claims.
	c.tokens.Put(key, id, id.ValidUntil, len(token), now)
	return id.ShownBy(peer)
}

// cacheKey begins with a digest of fixed length, so nothing can be moved
// between the two parts.
func (v *Verifier) cacheKey(token string) [sha256.Size]byte {
	buf := make([]byte, 0, 2048)
	return sha256.Sum256(append(append(buf, v.digest[:]...), token...))
}
