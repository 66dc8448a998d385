package passport

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/MicahParks/jwkset"

	"github.com/chancery-mesh/chancery/internal/jose"
)

// Key is a public key, and what its Passports may say: a gateway that was taken
// over speaks for nobody that it did not speak for before.
type Key struct {
	// Owner is the SPIFFE ID of the gateway that Passports signed with the key
	// must name.
	Owner string
	// Public is an [ed25519.PublicKey], or an [*ecdsa.PublicKey] on P-256.
	Public crypto.PublicKey
	// Until is when all of the key's Passports end; zero is never.
	Until time.Time
	// Providers are the identity providers whose users the key may speak for,
	// by name. None is nobody.
	Providers []string
	// Tenants are those whose users the key may speak for. Nil is any, and
	// users without one.
	Tenants []string
}

// KeySource finds keys by their id. It is called for each Passport, so it
// should answer from memory.
type KeySource interface {
	Key(id string) (Key, bool)
}

// KeySet is a fixed set of keys by their id, the RFC 7638 thumbprint. It must
// not be changed once it is in use.
type KeySet map[string]Key

// Key implements [KeySource].
func (s KeySet) Key(id string) (Key, bool) {
	k, ok := s[id]
	return k, ok
}

// The members of a JWK beside those of RFC 7517. A set whose keys all belong to
// one gateway may leave out the owner.
const (
	ownerMember     = "owner"
	untilMember     = "exp" // seconds since 1970, as in a JWT
	providersMember = "providers"
	tenantsMember   = "tenants"
)

// ParseKeySet reads a JWK Set (RFC 7517) strictly: every key must be public,
// fit for Passports, named by its thumbprint, and owned. Keys without a member
// "owner" belong to owner; an empty owner makes the member required.
func ParseKeySet(jwks []byte, owner string) (KeySet, error) {
	members, err := jose.ParseSet(jwks)
	if err != nil {
		return nil, fmt.Errorf("parse passport keys: %w", err)
	}
	set := make(KeySet, len(members))
	for i, m := range members {
		id, key, err := parseKey(m, owner)
		if err != nil {
			return nil, fmt.Errorf("parse passport keys: keys[%d]: %w", i, err)
		}
		if _, twice := set[id]; twice {
			return nil, fmt.Errorf("parse passport keys: keys[%d] stands twice", i)
		}
		set[id] = key
	}
	return set, nil
}

// ParseKey reads one public JWK that belongs to owner, and returns its id.
func ParseKey(jwk []byte, owner string) (id string, key Key, err error) {
	o, err := jose.ParseObject(jwk)
	if err == nil {
		id, key, err = parseKey(o, owner)
	}
	if err != nil {
		return "", Key{}, fmt.Errorf("parse passport key: %w", err)
	}
	return id, key, nil
}

func parseKey(jwk jose.Object, owner string) (string, Key, error) {
	parsed, err := jose.ParseKey(jwk)
	if err != nil {
		return "", Key{}, err
	}
	if algorithm, err := algorithmOf(parsed.Public); err != nil || algorithm != parsed.Algorithm {
		return "", Key{}, errors.New("key is neither EdDSA nor ES256")
	}
	if id, err := Thumbprint(parsed.Public); err != nil || id != parsed.ID {
		return "", Key{}, errors.New("kid is not the key's RFC 7638 thumbprint")
	}
	named, present, err := jwk.String(ownerMember)
	switch {
	case err != nil:
		return "", Key{}, err
	case present && owner != "" && named != owner:
		return "", Key{}, fmt.Errorf("key belongs to %q, not to %q", named, owner)
	case present:
		owner = named
	}
	if !strings.HasPrefix(owner, "spiffe://") {
		return "", Key{}, errors.New("key's owner is not a SPIFFE ID")
	}
	key := Key{Owner: owner, Public: parsed.Public}
	if key.Until, _, err = jwk.Time(untilMember); err != nil {
		return "", Key{}, err
	}
	if key.Providers, _, err = jwk.Strings(providersMember); err != nil {
		return "", Key{}, err
	}
	key.Tenants, _, err = jwk.Strings(tenantsMember)
	return parsed.ID, key, err
}

// jwk is the wire form of a key.
type jwk struct {
	jwkset.JWKMarshal
	Owner     string   `json:"owner,omitempty"`
	Until     *int64   `json:"exp,omitempty"`
	Providers []string `json:"providers,omitempty"`
	// An empty list is nobody, none is anybody.
	Tenants []string `json:"tenants,omitzero"`
}

// MarshalJSON encodes the set as a JWK Set, in the order of the ids.
func (s KeySet) MarshalJSON() ([]byte, error) {
	keys := make([]jwk, 0, len(s))
	for _, id := range slices.Sorted(maps.Keys(s)) {
		key := s[id]
		public, err := encodeKey(key.Public)
		if err != nil {
			return nil, fmt.Errorf("encode passport key %q: %w", id, err)
		}
		k := jwk{JWKMarshal: public, Owner: key.Owner, Providers: key.Providers, Tenants: key.Tenants}
		if !key.Until.IsZero() {
			k.Until = new(key.Until.Unix())
		}
		keys = append(keys, k)
	}
	return json.Marshal(map[string][]jwk{"keys": keys})
}

// EncodeKey returns the public JWK of a key for Passports.
func EncodeKey(public crypto.PublicKey) ([]byte, error) {
	k, err := encodeKey(public)
	if err != nil {
		return nil, fmt.Errorf("encode passport key: %w", err)
	}
	return json.Marshal(k)
}

func encodeKey(public crypto.PublicKey) (jwkset.JWKMarshal, error) {
	algorithm, err := algorithmOf(public)
	if err != nil {
		return jwkset.JWKMarshal{}, err
	}
	k, err := jwkset.NewJWKFromKey(public, jwkset.JWKOptions{
		Metadata: jwkset.JWKMetadataOptions{ALG: jwkset.ALG(algorithm), USE: jwkset.UseSig},
	})
	if err != nil {
		return jwkset.JWKMarshal{}, err
	}
	m := k.Marshal()
	m.KID, err = Thumbprint(public)
	return m, err
}

// Thumbprint returns the RFC 7638 thumbprint of a public key.
func Thumbprint(public crypto.PublicKey) (string, error) {
	k, err := jwkset.NewJWKFromKey(public, jwkset.JWKOptions{})
	if err != nil {
		return "", err
	}
	// The required members alone, in the order of their names.
	m := k.Marshal()
	data, err := json.Marshal(struct {
		CRV jwkset.CRV `json:"crv"`
		KTY jwkset.KTY `json:"kty"`
		X   string     `json:"x"`
		Y   string     `json:"y,omitempty"`
	}{m.CRV, m.KTY, m.X, m.Y})
	sum := sha256.Sum256(data)
	return base64.RawURLEncoding.EncodeToString(sum[:]), err
}

// algorithmOf returns the algorithm of a key for Passports.
func algorithmOf(public crypto.PublicKey) (string, error) {
	switch public.(type) {
	case ed25519.PublicKey, *ecdsa.PublicKey:
		if algorithm, err := jose.AlgorithmOf(public); err == nil && (algorithm == "EdDSA" || algorithm == "ES256") {
			return algorithm, nil
		}
	}
	return "", errors.New("key must be Ed25519, or ECDSA on P-256")
}
