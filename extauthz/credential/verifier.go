package credential

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/jose"
)

// MaxTokenSize bounds a token, in bytes.
const MaxTokenSize = 16 << 10

// Verifier verifies the access tokens, or the ID tokens, of one identity
// provider. It is immutable and safe for concurrent use.
type Verifier struct {
	kind      Kind
	provider  string
	issuer    string
	audiences []string
	claims    claimMapping
	skew      time.Duration
	// maxLifetime of tokens, zero for any.
	maxLifetime time.Duration
	keys        *KeySet
	// digest of everything that a verdict depends on, the keys included.
	digest [sha256.Size]byte
}

// NewVerifier returns the verifier of a provider's access tokens. Its keys must
// be known.
func NewVerifier(p *chancerypb.Provider) (*Verifier, error) {
	return newVerifier(p, KindAccessToken, p.GetAudiences())
}

// NewIDTokenVerifier returns the verifier of a provider's ID tokens, for clients
// with these ids. None of them may be an audience of access tokens: that would
// be the only difference between the two kinds where a provider does not type
// them (RFC 8725 section 3.12).
func NewIDTokenVerifier(p *chancerypb.Provider, clients []string) (*Verifier, error) {
	for _, c := range clients {
		if slices.Contains(p.GetAudiences(), c) {
			return nil, fmt.Errorf("provider %q: %q is an audience of access tokens and of ID tokens", p.GetName(), c)
		}
	}
	return newVerifier(p, KindIDToken, clients)
}

func newVerifier(p *chancerypb.Provider, kind Kind, audiences []string) (*Verifier, error) {
	v := &Verifier{
		kind: kind, provider: p.GetName(), issuer: p.GetIssuer(), audiences: audiences, skew: p.GetClockSkew().AsDuration(),
		maxLifetime: p.GetMaxTokenLifetime().AsDuration(),
	}
	var errs [4]error
	errs[0] = v.check()
	v.claims, errs[1] = newClaimMapping(p.GetClaims())
	v.keys, _, errs[2] = ParseKeySet(p.GetJwks())
	v.digest, errs[3] = digestOf(p, kind, audiences)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("provider %q: %w", p.GetName(), err)
	}
	return v, nil
}

func (v *Verifier) check() error {
	switch {
	case v.issuer == "":
		return errors.New("no issuer")
	case len(v.audiences) == 0 || slices.Contains(v.audiences, ""):
		return fmt.Errorf("audiences of %ss must be given and not be empty", v.kind)
	case v.skew < 0 || v.maxLifetime < 0:
		return errors.New("clock skew and maximal lifetime of tokens must not be negative")
	}
	return nil
}

// digestOf leaves out when the keys were fetched, so that fetching the same
// keys again changes nothing.
func digestOf(p *chancerypb.Provider, kind Kind, audiences []string) (digest [sha256.Size]byte, err error) {
	if p = proto.CloneOf(p); p != nil {
		p.FetchedAt, p.UsableUntil = nil, nil
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	h := sha256.New()
	for _, part := range append([]string{string(data), kind.String()}, audiences...) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	return [sha256.Size]byte(h.Sum(nil)), err
}

// Verify returns whom token speaks for at the time now. Peer is the certificate
// of the connection that it came over, nil if there is none: a token that is
// bound to one is good together with that one only (RFC 8705). An error is a
// [Reason].
func (v *Verifier) Verify(token string, now time.Time, peer *Certificate) (*Identity, error) {
	id, err := v.verify(token, now)
	if err != nil {
		return nil, err
	}
	return id.ShownBy(peer)
}

// verify leaves open who may show the token. Beside BadSignature it returns how
// long that would be said of the token: it has ended then.
func (v *Verifier) verify(token string, now time.Time) (*Identity, error) {
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
		return &Identity{ValidUntil: expires.Add(v.skew)}, BadSignature
	}
	id, err := v.claims.identity(t.Claims)
	if err != nil {
		return nil, err
	}
	id.Kind, id.Provider, id.Issuer = v.kind, v.provider, v.issuer
	id.ValidUntil = expires.Add(v.skew)
	if err := v.bind(id, t); err != nil {
		return nil, err
	}
	return id, nil
}

// bind reads what t says of other credentials.
func (v *Verifier) bind(id *Identity, t *jose.Token) error {
	if v.kind == KindIDToken {
		if err := id.bindIDToken(t); err != nil {
			return err
		}
		if v.claims.client == nil {
			id.Client = id.token.client
		}
	}
	return id.confirm(t.Claims)
}

func (v *Verifier) checkClaims(t *jose.Token, now time.Time) (expires time.Time, err error) {
	if err := checkType(t, v.kind); err != nil {
		return expires, err
	}
	if issuer, _, err := t.Claims.String("iss"); err != nil || issuer != v.issuer {
		return expires, WrongIssuer
	}
	if !v.isFor(t.Claims) {
		return expires, WrongAudience
	}
	return v.checkTimes(t.Claims, now)
}

func (v *Verifier) isFor(claims jose.Object) bool {
	if v.kind == KindIDToken {
		return v.isForClient(claims)
	}
	if aud, present := claims["aud"]; present {
		return v.accepts(aud)
	}
	// Cognito's access tokens name no audience. They say what they are, and which
	// client's: that must be one of ours then.
	client, _ := claims["client_id"].(string)
	return claims["token_use"] == "access" && v.accepts(client)
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
	if err := v.checkBegin(claims, now); err != nil {
		return expires, err
	}
	return expires, v.checkLifetime(claims, expires, now)
}

// checkLifetime refuses a token that outlives what would revoke it. One that does
// not tell when it was issued must end as soon as one that was issued now.
func (v *Verifier) checkLifetime(claims jose.Object, expires, now time.Time) error {
	issued, told, _ := claims.Time("iat") // checkBegin refused what is none
	if !told {
		issued = now.Add(v.skew)
	}
	if v.maxLifetime > 0 && expires.Sub(issued) > v.maxLifetime {
		return TooLong
	}
	return nil
}

func (v *Verifier) checkBegin(claims jose.Object, now time.Time) error {
	for _, name := range []string{"nbf", "iat"} {
		switch begin, present, err := claims.Time(name); {
		case err != nil || !present && name == "iat" && v.kind == KindIDToken:
			return Malformed
		case begin.After(now.Add(v.skew)):
			return NotYetValid
		}
	}
	return nil
}
