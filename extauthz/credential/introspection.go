package credential

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/jose"
)

// Introspection reads what an identity provider answers about a token (RFC 7662).
// It is immutable and safe for concurrent use.
type Introspection struct{ verifier *Verifier }

// NewIntrospection returns the reader of a provider's answers. Its keys need not
// be known.
func NewIntrospection(p *chancerypb.Provider) (*Introspection, error) {
	v := &Verifier{
		kind: KindAccessToken, provider: p.GetName(), issuer: p.GetIssuer(), audiences: p.GetAudiences(),
		skew: p.GetClockSkew().AsDuration(), maxLifetime: p.GetMaxTokenLifetime().AsDuration(),
	}
	var err error
	v.claims, err = newClaimMapping(p.GetClaims())
	if err := errors.Join(err, v.check()); err != nil {
		return nil, fmt.Errorf("provider %q: %w", p.GetName(), err)
	}
	return &Introspection{v}, nil
}

// Identity returns whom a token speaks for, by the JSON of the answer. It must be
// an access token that is active, and everything that a JWT must say; but a
// missing `iss` is that of the provider which was asked, and a missing `exp`
// leaves ValidUntil zero. [Identity.ShownBy] says who may show it. An error is a
// [Reason].
func (i *Introspection) Identity(answer []byte, now time.Time) (*Identity, error) {
	claims, err := jose.ParseObject(answer)
	if err != nil {
		return nil, Malformed
	}
	if active, ok := claims["active"].(bool); !ok || !active {
		return nil, Inactive
	}
	if !isAccessToken(claims) {
		return nil, WrongType
	}
	if issuer, present, err := claims.String("iss"); err != nil || present && issuer != i.verifier.issuer {
		return nil, WrongIssuer
	}
	if !i.verifier.accepts(claims["aud"]) {
		return nil, WrongAudience
	}
	until, err := i.until(claims, now)
	if err != nil {
		return nil, err
	}
	id, err := i.verifier.claims.identity(claims)
	if err != nil {
		return nil, err
	}
	id.Kind, id.Provider, id.Issuer, id.ValidUntil = KindAccessToken, i.verifier.provider, i.verifier.issuer, until
	if err := id.confirm(claims); err != nil {
		return nil, err
	}
	return id, nil
}

// until returns when a token is accepted no more, zero where its provider does
// not tell. One that only tells when it was issued ends when what would revoke it
// does.
func (i *Introspection) until(claims jose.Object, now time.Time) (time.Time, error) {
	v := i.verifier
	if _, ends := claims["exp"]; ends {
		expires, err := v.checkTimes(claims, now)
		return expires.Add(v.skew), err
	}
	if err := v.checkBegin(claims, now); err != nil {
		return time.Time{}, err
	}
	issued, told, _ := claims.Time("iat") // checkBegin refused what is none
	if !told || v.maxLifetime == 0 {
		return time.Time{}, nil
	}
	until := issued.Add(v.maxLifetime + v.skew)
	if now.After(until) {
		return until, TooLong
	}
	return until, nil
}

// isAccessToken wants to see that it is one: providers tell of refresh tokens as
// well, and some leave the type out there.
func isAccessToken(claims jose.Object) bool {
	if _, typed := claims["token_type"]; typed {
		typ, _, err := claims.String("token_type")
		return err == nil && strings.EqualFold(typ, "Bearer") && checkUntyped(claims, KindAccessToken) == nil
	}
	return checkUntyped(claims, KindAccessToken) == nil && (claims["typ"] != nil || claims["token_use"] != nil)
}
