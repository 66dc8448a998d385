package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// Key is a public key together with the one algorithm that it verifies.
type Key struct {
	ID        string
	Algorithm string
	Public    crypto.PublicKey
}

// methods are the algorithms that are accepted at all.
var methods = map[string]jwt.SigningMethod{
	"RS256": jwt.SigningMethodRS256,
	"RS384": jwt.SigningMethodRS384,
	"RS512": jwt.SigningMethodRS512,
	"PS256": withSaltOfHash(jwt.SigningMethodPS256),
	"PS384": withSaltOfHash(jwt.SigningMethodPS384),
	"PS512": withSaltOfHash(jwt.SigningMethodPS512),
	"ES256": jwt.SigningMethodES256,
	"ES384": jwt.SigningMethodES384,
	"ES512": jwt.SigningMethodES512,
	"EdDSA": jwt.SigningMethodEdDSA,
}

var rsaAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}

// withSaltOfHash wants what RFC 7518 section 3.5 does: golang-jwt's own accepts a
// salt of any length.
func withSaltOfHash(m *jwt.SigningMethodRSAPSS) *jwt.SigningMethodRSAPSS {
	return &jwt.SigningMethodRSAPSS{
		SigningMethodRSA: m.SigningMethodRSA,
		Options:          &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash},
	}
}

// ParseSet reads a JWK Set as far as its members, which [ParseKey] reads.
func ParseSet(data []byte) ([]Object, error) {
	set, err := ParseObject(data)
	if err != nil {
		return nil, err
	}
	keys, ok := set["keys"].([]any)
	if !ok {
		return nil, fmt.Errorf(`%w: no "keys"`, ErrMalformed)
	}
	members := make([]Object, len(keys))
	for i, k := range keys {
		if members[i], ok = k.(Object); !ok {
			return nil, fmt.Errorf("%w: keys[%d] is not an object", ErrMalformed, i)
		}
	}
	return members, nil
}

// privateMembers give a private or symmetric key away.
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

// ParseKey reads a public key for signatures. A key that somebody published
// with its private half, that is weak, or meant for something else, is refused.
func ParseKey(jwk Object) (Key, error) {
	for _, name := range privateMembers {
		if _, ok := jwk[name]; ok {
			return Key{}, errors.New("key is not public")
		}
	}
	if err := checkUse(jwk); err != nil {
		return Key{}, err
	}
	var members [6]string
	for i, name := range []string{"kty", "crv", "x", "y", "n", "e"} {
		var err error
		if members[i], _, err = jwk.String(name); err != nil {
			return Key{}, err
		}
	}
	parsed, err := jwkset.NewJWKFromMarshal(jwkset.JWKMarshal{
		KTY: jwkset.KTY(members[0]), CRV: jwkset.CRV(members[1]),
		X: members[2], Y: members[3], N: members[4], E: members[5],
	}, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{StrictPadding: true})
	if err != nil {
		return Key{}, err
	}
	return newKey(jwk, parsed.Key())
}

// checkUse reads `use` and `key_ops` (RFC 7517 sections 4.2 and 4.3).
func checkUse(jwk Object) error {
	if use, present, err := jwk.String("use"); err != nil || present && use != "sig" {
		return errors.New("key is not for signatures")
	}
	ops, present, err := jwk.Strings("key_ops")
	if err != nil || present && !slices.Contains(ops, "verify") {
		return errors.New("key is not for verifying")
	}
	return nil
}

func newKey(jwk Object, public crypto.PublicKey) (Key, error) {
	algorithm, err := AlgorithmOf(public)
	if err != nil {
		return Key{}, err
	}
	key := Key{Algorithm: algorithm, Public: public}
	if key.ID, _, err = jwk.String("kid"); err != nil {
		return Key{}, err
	}
	named, present, err := jwk.String("alg")
	if err != nil || !present {
		return key, err
	}
	if named != algorithm && (algorithm != "RS256" || !slices.Contains(rsaAlgorithms, named)) {
		return Key{}, errors.New("algorithm does not fit the key")
	}
	key.Algorithm = named
	return key, nil
}

// AlgorithmOf returns the algorithm of a key that names none; RS256 for RSA,
// as everywhere. A key that is weak or of another kind is an error.
func AlgorithmOf(public crypto.PublicKey) (string, error) {
	switch k := public.(type) {
	case ed25519.PublicKey:
		return "EdDSA", nil
	case *ecdsa.PublicKey:
		switch k.Curve.Params().Name {
		case "P-256":
			return "ES256", nil
		case "P-384":
			return "ES384", nil
		case "P-521":
			return "ES512", nil
		}
	case *rsa.PublicKey:
		return "RS256", checkRSA(k)
	}
	return "", errors.New("unsupported kind of key")
}
