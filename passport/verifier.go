package passport

import (
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/internal/jose"
	"github.com/chancery-mesh/chancery/internal/memory"
)

// Why a Passport is refused, for [errors.Is].
var (
	// ErrMalformed says that it is not a Passport, or can be read in two ways.
	ErrMalformed = jose.ErrMalformed
	// ErrSignature says that its key did not sign it.
	ErrSignature = jose.ErrSignature
	// ErrUnknownKey says that no key has its `kid`.
	ErrUnknownKey = errors.New("unknown key")
	// ErrWorkload says that its key belongs to another gateway than it names.
	ErrWorkload = errors.New("minted by another than the key's owner")
	// ErrAudience says that it is for another trust domain.
	ErrAudience = errors.New("meant for another trust domain")
	// ErrExpired says that it was valid.
	ErrExpired = errors.New("expired")
	// ErrNotYetValid says that it was issued in the future.
	ErrNotYetValid = errors.New("not yet valid")
	// ErrKeyExpired says that its key was good until some time before now.
	ErrKeyExpired = errors.New("key expired")
	// ErrProvider says that its key may not speak for users of its provider.
	ErrProvider = errors.New("of an identity provider that the key does not speak for")
	// ErrTenant says that its key may not speak for users of its tenant.
	ErrTenant = errors.New("of a tenant that the key does not speak for")
	// ErrLifetime says that it is valid for longer than is believed.
	ErrLifetime = errors.New("lifetime is too long")
	// ErrTooLarge says that its encoded form would exceed [MaxSize].
	ErrTooLarge = errors.New("too large")
)

// VerifierConfig says what a [Verifier] accepts.
type VerifierConfig struct {
	// TrustDomain that Passports must be meant for; required.
	TrustDomain string
	// Keys of the gateways whose Passports are accepted; required.
	Keys KeySource
	// ClockSkew is tolerated between gateways and here. Default 5s, negative
	// for none.
	ClockSkew time.Duration
	// MaxLifetime bounds what a Passport may claim. Default 10m.
	MaxLifetime time.Duration
	// Remember is about how many verified Passports are remembered: one that comes
	// again is not verified again, but judged by the clock and by what Keys says
	// of its key then. Default none.
	Remember int
	// Now is the clock. Default [time.Now].
	Now func() time.Time
}

// Verifier verifies Passports.
type Verifier struct {
	c     VerifierConfig
	known *memory.Memory[verified] // nil for none
}

// verified is a Passport whose signature is good.
type verified struct {
	passport *Passport
	keyID    string
	public   crypto.PublicKey
}

// NewVerifier returns a verifier, or says what is missing in c.
func NewVerifier(c VerifierConfig) (*Verifier, error) {
	if c.TrustDomain == "" || c.Keys == nil {
		return nil, errors.New("passport verifier needs a trust domain and keys")
	}
	if c.ClockSkew == 0 {
		c.ClockSkew = 5 * time.Second
	}
	c.ClockSkew = max(c.ClockSkew, 0)
	if c.MaxLifetime == 0 {
		c.MaxLifetime = 10 * time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	v := &Verifier{c: c}
	if c.Remember > 0 {
		v.known = memory.New[verified](c.Remember)
	}
	return v, nil
}

// Verify returns the Passport that token encodes, or an error that is one of
// those above. It may be shared, and must not be changed.
func (v *Verifier) Verify(token string) (*Passport, error) {
	p, err := v.verify(token)
	if err != nil {
		return nil, fmt.Errorf("verify passport: %w", err)
	}
	return p, nil
}

func (v *Verifier) verify(token string) (*Passport, error) {
	if v.known == nil || len(token) > MaxSize {
		anew, err := v.verifyAnew(token)
		return anew.passport, err
	}
	now, digest := v.c.Now(), digestOf(token)
	if known, ok := v.known.Get(&digest, now); ok {
		if key, ok := v.c.Keys.Key(known.keyID); ok && isSame(key.Public, known.public) {
			return known.passport, v.judge(known.passport, key)
		}
	}
	// What is remembered must not hold the request that it came with.
	anew, err := v.verifyAnew(strings.Clone(token))
	if err == nil {
		v.known.Put(digest, anew, anew.passport.ExpiresAt.Add(v.c.ClockSkew), anew.passport.held(token), now)
	}
	return anew.passport, err
}

// held is about how many bytes p keeps that token encodes: texts, and a header
// for each name.
func (p *Passport) held(token string) int {
	const header = 16
	return 2*len(token) + header*(cap(p.Groups)+cap(p.Scopes)+cap(p.AMR))
}

// digestOf names a token. All of it counts, the signature, too: nobody has
// another text with the same digest.
func digestOf(token string) [sha256.Size]byte {
	const usual = 2 << 10 // fits on the stack
	return sha256.Sum256(append(make([]byte, 0, usual), token...))
}

// isSame compares public keys. Those of a set are named by their thumbprint, but
// a [KeySource] may be anything.
func isSame(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

func (v *Verifier) verifyAnew(token string) (verified, error) {
	t, h, err := split(token)
	if err != nil {
		return verified{}, err
	}
	key, ok := v.c.Keys.Key(h.keyID)
	if !ok {
		return verified{}, ErrUnknownKey
	}
	algorithm, err := algorithmOf(key.Public)
	if err != nil {
		return verified{}, fmt.Errorf("%w: %w", ErrUnknownKey, err)
	}
	if err := t.Verify(jose.Key{Algorithm: algorithm, Public: key.Public}, h.algorithm); err != nil {
		return verified{}, err
	}
	p, err := decode(t.Payload)
	if err != nil {
		return verified{}, err
	}
	p.token = token
	return verified{p, h.keyID, key.Public}, v.judge(p, key)
}

// header is what stands in that of a Passport.
type header struct{ algorithm, keyID, typ string }

// split takes a token apart. It accepts exactly the header that [Signer]
// writes: no member could change which key is used or how.
func split(token string) (*jose.Compact, header, error) {
	var h header
	t, err := jose.Split(token, MaxSize)
	if err != nil {
		return nil, h, err
	}
	in, err := jose.NewParser(t.Header)
	if err != nil {
		return nil, h, err
	}
	err = in.Object(func(name string) (err error) {
		switch name {
		case "alg":
			h.algorithm, err = in.String()
		case "kid":
			h.keyID, err = in.String()
		case "typ":
			h.typ, err = in.String()
		default:
			err = errHeader
		}
		return err
	})
	if err == nil {
		err = in.End()
	}
	if err == nil && (h.algorithm == "" || h.keyID == "" || h.typ != Type) {
		err = errHeader
	}
	return t, h, err
}

var errHeader = fmt.Errorf("%w: header must be alg, kid and typ %q", ErrMalformed, Type)

func (v *Verifier) judge(p *Passport, key Key) error {
	now := v.c.Now()
	switch {
	case p.Gateway != key.Owner:
		return ErrWorkload
	case !key.Until.IsZero() && !now.Before(key.Until.Add(v.c.ClockSkew)):
		return ErrKeyExpired
	case p.Audience != v.c.TrustDomain:
		return ErrAudience
	case p.ExpiresAt.Sub(p.IssuedAt) > v.c.MaxLifetime:
		return ErrLifetime
	case p.IssuedAt.After(now.Add(v.c.ClockSkew)):
		return ErrNotYetValid
	case !now.Before(p.ExpiresAt.Add(v.c.ClockSkew)):
		return ErrExpired
	case !slices.Contains(key.Providers, p.Provider):
		return ErrProvider
	case key.Tenants != nil && !slices.Contains(key.Tenants, p.Tenant):
		return ErrTenant
	}
	return nil
}

// Inspect decodes a Passport without verifying it, and returns the id of the
// key that it names. What it says is anybody's claim: show it, but decide
// nothing by it.
func Inspect(token string) (p *Passport, keyID string, err error) {
	t, h, err := split(token)
	if err == nil {
		p, err = decode(t.Payload)
	}
	if err != nil {
		return nil, "", fmt.Errorf("inspect passport: %w", err)
	}
	return p, h.keyID, nil
}
