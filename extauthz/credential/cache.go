package credential

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
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
	c.tokens.Put(key, id, id.ValidUntil, id.Size(claimsSize(token)), now)
	return id.ShownBy(peer)
}

const (
	// identitySize is that of an [Identity] itself, and nameSize that of a string
	// beside its text.
	identitySize = 512
	nameSize     = 16
)

// Size returns about how many bytes an identity keeps in memory that was read from
// so much text, which its names are parts of. Of many short names, the text is the
// least.
func (id *Identity) Size(text int) int {
	return identitySize + text + nameSize*(cap(id.Groups)+cap(id.Scopes)+cap(id.AMR))
}

// claimsSize is that of the text of a token's claims.
func claimsSize(token string) int {
	_, rest, _ := strings.Cut(token, ".")
	claims, _, _ := strings.Cut(rest, ".")
	return base64.RawURLEncoding.DecodedLen(len(claims))
}

// cacheKey begins with a digest of fixed length, so nothing can be moved
// between the two parts.
func (v *Verifier) cacheKey(token string) [sha256.Size]byte {
	buf := make([]byte, 0, 2048)
	return sha256.Sum256(append(append(buf, v.digest[:]...), token...))
}
