package passport

import (
	"crypto"
	"crypto/ecdsa"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-mesh/chancery/internal/jose"
)

// Signer mints Passports with one key.
type Signer struct {
	key       crypto.Signer
	algorithm string
	id        string
	header    string
	until     time.Time
}

// NewSigner takes an Ed25519 key (EdDSA), or an [*ecdsa.PrivateKey] on P-256
// (ES256) where a verifier lacks the former.
func NewSigner(key crypto.Signer) (*Signer, error) {
	if key == nil {
		return nil, errors.New("no signing key")
	}
	algorithm, err := algorithmOf(key.Public())
	if err != nil {
		return nil, err
	}
	if _, ok := key.(*ecdsa.PrivateKey); !ok && algorithm == "ES256" {
		return nil, errors.New("an ES256 key must be an *ecdsa.PrivateKey")
	}
	id, err := Thumbprint(key.Public())
	if err != nil {
		return nil, err
	}
	header := fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":%q}`, algorithm, id, Type)
	return &Signer{
		key: key, algorithm: algorithm, id: id,
		header: base64.RawURLEncoding.EncodeToString([]byte(header)),
	}, nil
}

// KeyID returns the RFC 7638 thumbprint of the key: the `kid` of its Passports.
func (s *Signer) KeyID() string { return s.id }

// Public returns the public half of the key.
func (s *Signer) Public() crypto.PublicKey { return s.key.Public() }

// Until returns a signer with the same key whose Passports all end by then, as
// the key does.
func (s *Signer) Until(end time.Time) *Signer {
	bounded := *s
	bounded.until = end
	return &bounded
}

// Mint encodes and signs p. All of ID, Subject, Audience, Gateway, IssuedAt and
// ExpiresAt are required; times are cut to whole seconds.
func (s *Signer) Mint(p *Passport) (string, error) {
	if !s.until.IsZero() && p.ExpiresAt.After(s.until) {
		bounded := *p
		bounded.ExpiresAt = s.until
		p = &bounded
	}
	if err := p.check(); err != nil {
		return "", fmt.Errorf("mint passport: %w", err)
	}
	token, err := jose.Sign(s.header, p.encode(), s.algorithm, s.key)
	if err != nil {
		return "", fmt.Errorf("mint passport: %w", err)
	}
	if len(token) > MaxSize {
		return "", fmt.Errorf("mint passport: %w", ErrTooLarge)
	}
	return token, nil
}
