package credential

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/internal/jose"
)

// APIKey is one that somebody was given: chk_ID_SECRET_CHECKSUM. Scanners of
// source code find it by its form, and know by the checksum that it is one.
type APIKey struct {
	// ID is the public part, by which it is looked up and named in logs.
	ID string
	// Hash is what [HashAPIKey] makes of the whole key. The secret has 190 random
	// bits, so a fast hash keeps it.
	Hash string
	// Owner is the user that whoever has the key acts for.
	Owner  string
	Client string
	Tenant string
	Scopes []string
	// Expires is zero for never.
	Expires  time.Time
	Disabled bool
}

// Form of an API key.
const (
	apiKeyPrefix = "chk_"
	apiKeyID     = 10
	apiKeySecret = 32
	apiKeySum    = 6
	apiKeySize   = len(apiKeyPrefix) + apiKeyID + 1 + apiKeySecret + 1 + apiKeySum
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// GenerateAPIKey makes the id of a new key and the key itself, which is to be told
// once and never kept.
func GenerateAPIKey() (id, key string) {
	id = randomText(apiKeyID)
	return id, GenerateAPIKeyOf(id)
}

// GenerateAPIKeyOf makes another key with an id, which [HashAPIKey] tells from
// the one that it was made with.
func GenerateAPIKeyOf(id string) string {
	key := apiKeyPrefix + id + "_" + randomText(apiKeySecret) + "_"
	return key + checksum(key)
}

// randomText returns n letters and digits.
func randomText(n int) string {
	text := make([]byte, 0, n)
	for random := make([]byte, 2*n); len(text) < n; {
		_, _ = rand.Read(random) // never fails
		for _, b := range random {
			// Of 256 values, 248 are four of each.
			if int(b) < 4*len(base62) && len(text) < n {
				text = append(text, base62[int(b)%len(base62)])
			}
		}
	}
	return string(text)
}

// checksum is no secret: it tells scanners, and a key with a typing error.
func checksum(s string) string {
	sum := crc32.ChecksumIEEE([]byte(s))
	text := make([]byte, apiKeySum)
	for i := len(text) - 1; i >= 0; i-- {
		text[i] = base62[sum%uint32(len(base62))]
		sum /= uint32(len(base62))
	}
	return string(text)
}

const apiKeyHash = "sha256:"

// HashAPIKey returns what documents keep of a key.
func HashAPIKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return apiKeyHash + hex.EncodeToString(sum[:])
}

// APIKeys looks keys up. It is immutable and safe for concurrent use.
type APIKeys struct{ keys map[string]*apiKey }

type apiKey struct {
	hash     [sha256.Size]byte
	disabled bool
	identity Identity
}

// NewAPIKeys returns the lookup of keys, or all that is wrong with them.
func NewAPIKeys(keys []APIKey) (*APIKeys, error) {
	k := &APIKeys{keys: make(map[string]*apiKey, len(keys))}
	var errs []error
	for i := range keys {
		if err := k.add(&keys[i]); err != nil {
			errs = append(errs, fmt.Errorf("API key %.64q: %w", keys[i].ID, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return k, nil
}

func (k *APIKeys) add(key *APIKey) error {
	digest, prefixed := strings.CutPrefix(key.Hash, apiKeyHash)
	hash, err := hex.DecodeString(digest)
	switch {
	case !isAPIKeyID(key.ID):
		return fmt.Errorf("id must have %d letters and digits", apiKeyID)
	case k.keys[key.ID] != nil:
		return errors.New("id stands twice")
	case !prefixed || err != nil || len(hash) != sha256.Size:
		return fmt.Errorf("hash must be %s with %d hexadecimal digits", apiKeyHash, 2*sha256.Size)
	case !jose.IsIdentifier(key.Owner):
		return errors.New("owner must be given, and be printable text")
	}
	k.keys[key.ID] = &apiKey{
		hash: [sha256.Size]byte(hash), disabled: key.Disabled,
		identity: Identity{
			Kind: KindAPIKey, User: key.Owner, Tenant: key.Tenant, Client: key.Client, Scopes: key.Scopes,
			ID: key.ID, ValidUntil: key.Expires,
		},
	}
	return nil
}

func isAPIKeyID(s string) bool {
	return len(s) == apiKeyID && strings.Trim(s, base62) == ""
}

// Verify returns whose key it is. An error is a [Reason]; that a key has ended or
// is disabled is told of one that was good only.
func (k *APIKeys) Verify(key string, now time.Time) (*Identity, error) {
	if len(key) != apiKeySize || !strings.HasPrefix(key, apiKeyPrefix) {
		return nil, BadKey
	}
	// A key that is not known takes as long as one that is.
	known := k.keys[key[len(apiKeyPrefix):len(apiKeyPrefix)+apiKeyID]]
	if known == nil {
		known = &nobody
	}
	sum := sha256.Sum256([]byte(key))
	switch {
	case subtle.ConstantTimeCompare(sum[:], known.hash[:]) != 1:
		return nil, BadKey
	case known.disabled:
		return nil, KeyDisabled
	case !known.identity.ValidUntil.IsZero() && !now.Before(known.identity.ValidUntil):
		return nil, KeyExpired
	}
	return &known.identity, nil
}

// nobody has the key of which SHA-256 is zero.
var nobody = apiKey{disabled: true}
