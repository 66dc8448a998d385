// Package jose reads JSON Web Signatures and Keys (RFC 7515, 7517, 8037)
// strictly: a token has one spelling, a JSON member stands once, an algorithm
// belongs to a key and never to the token alone, and nothing that a token
// names is ever fetched.
//
// It knows signatures; what claims mean is its callers' business. The
// cryptography is golang-jwt's, the parsing of keys is jwkset's.
package jose

import (
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrMalformed says that something is not what RFC 7515 and 7519 describe,
	// or has more than one reading.
	ErrMalformed = errors.New("malformed")
	// ErrSignature says that the key did not sign the token.
	ErrSignature = errors.New("signature does not verify")
	// ErrAlgorithm is the ErrSignature of a token whose algorithm is not its
	// key's.
	ErrAlgorithm = fmt.Errorf("%w: algorithm is not the key's", ErrSignature)
)

// Compact is a JWS in compact serialization, taken apart. Nothing in it is to be
// believed before [Compact.Verify].
type Compact struct {
	// Header and Payload are decoded, and nothing more.
	Header, Payload []byte

	signingInput string
	signature    []byte
}

// Split takes a token of at most limit bytes apart. It accepts exactly one
// encoding of each token, so what was hashed, cached or revoked has no twin.
func Split(token string, limit int) (*Compact, error) {
	if len(token) > limit {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrMalformed, limit)
	}
	header, rest, _ := strings.Cut(token, ".")
	payload, signature, ok := strings.Cut(rest, ".")
	if !ok {
		return nil, fmt.Errorf("%w: not three segments", ErrMalformed)
	}
	c := &Compact{signingInput: token[:len(header)+1+len(payload)]}
	var err error
	if c.Header, err = Decode(header); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if c.Payload, err = Decode(payload); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	if c.signature, err = Decode(signature); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	return c, nil
}

// Verify checks the signature by key, with key's own algorithm, which must be
// the one that the header claims.
func (c *Compact) Verify(key Key, claimed string) error {
	if claimed != key.Algorithm {
		return ErrAlgorithm
	}
	if methods[key.Algorithm].Verify(c.signingInput, c.signature, key.Public) != nil {
		return ErrSignature
	}
	return nil
}

// Token is a parsed JWS. Nothing in it is to be believed before [Token.Verify].
type Token struct {
	Header Object
	Claims Object

	algorithm string
	compact   *Compact
}

// Parse reads a token of at most limit bytes, whose payload are claims, as
// [Split] does.
func Parse(token string, limit int) (*Token, error) {
	t, err := parseJWS(token, limit)
	if err != nil {
		return nil, err
	}
	if t.Claims, err = ParseObject(t.compact.Payload); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	return t, nil
}

func parseJWS(token string, limit int) (*Token, error) {
	c, err := Split(token, limit)
	if err != nil {
		return nil, err
	}
	t := &Token{compact: c}
	if err := t.parseHeader(); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	return t, nil
}

// refusedMembers of a header change how a token is read, or ask for a key of
// the token's own choice.
var refusedMembers = []string{"crit", "b64", "zip", "enc", "jwk", "jku", "x5u"}

func (t *Token) parseHeader() (err error) {
	if t.Header, err = ParseObject(t.compact.Header); err != nil {
		return err
	}
	for _, name := range refusedMembers {
		if _, present := t.Header[name]; present {
			return fmt.Errorf("%w: member %q", ErrMalformed, name)
		}
	}
	t.algorithm, _, err = t.Header.String("alg")
	return err
}

var encoding = base64.RawURLEncoding.Strict()

// Decode decodes canonical base64url. Go's strict decoder still skips line
// breaks, hence the first check.
func Decode(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, fmt.Errorf("%w: line break", ErrMalformed)
	}
	data, err := encoding.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("%w: not base64url", ErrMalformed)
	}
	return data, nil
}

// Algorithm returns the `alg` that the token claims.
func (t *Token) Algorithm() string { return t.algorithm }

// Verify checks the signature by key, with key's own algorithm.
func (t *Token) Verify(key Key) error { return t.compact.Verify(key, t.algorithm) }

// sign spares Ed25519, which gateways sign each request with, two copies.
func sign(input []byte, algorithm string, key crypto.PrivateKey) ([]byte, error) {
	if private, ok := key.(ed25519.PrivateKey); ok && algorithm == "EdDSA" {
		return ed25519.Sign(private, input), nil
	}
	return methods[algorithm].Sign(string(input), key)
}

// Sign signs claims (JSON) under a header that is encoded already.
func Sign(encodedHeader string, claims []byte, algorithm string, key crypto.PrivateKey) (string, error) {
	n := len(encodedHeader) + 1 + base64.RawURLEncoding.EncodedLen(len(claims))
	buf := make([]byte, 0, n+1+base64.RawURLEncoding.EncodedLen(64))
	buf = append(append(buf, encodedHeader...), '.')
	buf = base64.RawURLEncoding.AppendEncode(buf, claims)
	signature, err := sign(buf, algorithm, key)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return string(base64.RawURLEncoding.AppendEncode(append(buf, '.'), signature)), nil
}
