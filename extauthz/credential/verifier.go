package credential

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/jose"
)

// MaxTokenSize bounds an access token, in bytes.
const MaxTokenSize = 16 << 10

// Verifier verifies the access tokens of one identity provider. It is immutable
// and safe for concurrent use.
type Verifier struct {
	issuer    string
	audiences []string
	claims    claimMapping
	skew      time.Duration
	keys      *KeySet
	// digest of everything that a verdict depends on, the keys included.
	digest [sha256.Size]byte
}

// NewVerifier returns the verifier of a provider, whose keys must be known.
func NewVerifier(p *chancerypb.Provider) (*Verifier, error) {
	if p.GetIssuer() == "" {
		return nil, fmt.Errorf("provider %q: no issuer", p.GetName())
	}
	if len(p.GetAudiences()) == 0 || slices.Contains(p.GetAudiences(), "") {
		return nil, fmt.Errorf("provider %q: audiences must be given and not be empty", p.GetName())
	}
	if p.GetClockSkew().AsDuration() < 0 {
		return nil, fmt.Errorf("provider %q: clock skew must not be negative", p.GetName())
	}
	keys, _, err := ParseKeySet(p.GetJwks())
	if err != nil {
		return nil, fmt.Errorf("provider %q: %w", p.GetName(), err)
	}
	digest, err := digestOf(p)
	if err != nil {
		return nil, fmt.Errorf("provider %q: %w", p.GetName(), err)
	}
	return &Verifier{
		issuer: p.GetIssuer(), audiences: p.GetAudiences(), claims: newClaimMapping(p.GetClaims()),
		skew: p.GetClockSkew().AsDuration(), keys: keys, digest: digest,
	}, nil
}

// digestOf leaves out when the keys were fetched, so that fetching the same
// keys again changes nothing.
func digestOf(p *chancerypb.Provider) ([sha256.Size]byte, error) {
	p = proto.CloneOf(p)
	p.FetchedAt, p.UsableUntil = nil, nil
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	return sha256.Sum256(data), err
}

// Verify returns whom token speaks for at the time now. An error is a [Reason].
func (v *Verifier) Verify(token string, now time.Time) (*Identity, error) {
	t, err := jose.Parse(token, MaxTokenSize)
	if err != nil {
		return nil, Malformed
	}
	// Cheap checks come before the signature; all of them must pass anyway.
	expires, err := v.checkClaims(t, now)
	if err != nil {
		return nil, err
	}
	key, err := v.keys.find(t)
	if err != nil {
		return nil, err
	}
	switch err := t.Verify(key); {
	case errors.Is(err, jose.ErrAlgorithm):
		return nil, WrongAlgorithm
	case err != nil:
		return nil, BadSignature
	}
	id, err := v.claims.identity(t.Claims)
	if err != nil {
		return nil, err
	}
	id.ValidUntil = expires.Add(v.skew)
	return id, nil
}

func (v *Verifier) checkClaims(t *jose.Token, now time.Time) (expires time.Time, err error) {
	if err := checkType(t); err != nil {
		return expires, err
	}
	if _, bound := t.Claims["cnf"]; bound {
		return expires, Bound
	}
	if issuer, _, err := t.Claims.String("iss"); err != nil || issuer != v.issuer {
		return expires, WrongIssuer
	}
	if !v.accepts(t.Claims["aud"]) {
		return expires, WrongAudience
	}
	return v.checkTimes(t.Claims, now)
}

// checkType tells access tokens from the other JWTs that a provider signs with
// the same keys (RFC 8725 section 3.11). Many providers do not type them, so
// what only ID tokens have must be absent then.
func checkType(t *jose.Token) error {
	typ, _, err := t.Header.String("typ")
	if err != nil {
		return Malformed
	}
	switch strings.TrimPrefix(strings.ToLower(typ), "application/") {
	case "at+jwt":
		return nil
	case "jwt", "":
		for _, name := range []string{"nonce", "at_hash", "c_hash"} {
			if _, present := t.Claims[name]; present {
				return WrongType
			}
		}
		return nil
	}
	return WrongType
}

// accepts reports whether `aud`, a string or an array of them, has a member
// that is ours, byte by byte.
func (v *Verifier) accepts(aud any) bool {
	switch aud := aud.(type) {
	case string:
		return slices.Contains(v.audiences, aud)
	case []any:
		return slices.ContainsFunc(aud, func(a any) bool {
			s, ok := a.(string)
			return ok && slices.Contains(v.audiences, s)
		})
	}
	return false
}

func (v *Verifier) checkTimes(claims jose.Object, now time.Time) (expires time.Time, err error) {
	expires, present, err := claims.Time("exp")
	switch {
	case err != nil || !present:
		return expires, Malformed
	case now.After(expires.Add(v.skew)):
		return expires, Expired
	}
	for _, name := range []string{"nbf", "iat"} {
		switch begin, _, err := claims.Time(name); {
		case err != nil:
			return expires, Malformed
		case begin.After(now.Add(v.skew)):
			return expires, NotYetValid
		}
	}
	return expires, nil
}
