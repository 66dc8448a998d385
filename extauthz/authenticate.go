package extauthz

import (
	"cmp"
	"context"
	"errors"

	"github.com/chancery-mesh/chancery/extauthz/credential"
)

// authenticate finds out who makes a request at a gateway. Nil is nobody, whom
// the route lets in.
func (c *check) authenticate(ctx context.Context) (*credential.Identity, verdict) {
	a := c.rule.auth
	if a.anonymous && len(a.alternatives) == 0 {
		c.note("credential", "anonymous", outcomeSkipped)
		return nil, allowed
	}
	if len(a.alternatives) == 0 {
		return nil, c.conclude("credential", "", routeClosed)
	}
	found, err := credential.Find(c.request.headers.lines, c.request.query)
	if err != nil {
		return nil, c.refuse("credential", found.Kinds.String(), err)
	}
	if c.request.certificate != "" && a.kinds.Has(credential.KindClientCertificate) {
		found.Kinds |= credential.KindClientCertificate
	}
	c.Shown = found.Kinds
	if found.Kinds != 0 {
		c.note("credential", found.Kinds.String(), outcomeFound)
	}
	one, err := a.choose(found.Kinds)
	switch {
	case err != nil:
		return nil, c.refuse("credential", found.Kinds.String(), err)
	case one == nil:
		c.note("credential", "anonymous", outcomeSkipped)
		return nil, allowed
	}
	if a.byIssuer {
		one = c.byIssuer(one, &found)
	}
	return c.verify(ctx, one, &found)
}

// byIssuer returns, of the alternatives that found could be meant for, that of
// the issuer which the token names: any other would refuse it. Else it returns
// first.
func (c *check) byIssuer(first *alternative, found *credential.Found) *alternative {
	issuer := credential.ClaimedIssuer(cmp.Or(found.AccessToken, found.IDToken))
	for i := range c.rule.auth.alternatives {
		one := &c.rule.auth.alternatives[i]
		p := c.state.providers[one.provider()]
		if p != nil && issuer != "" && p.GetIssuer() == issuer && one.takes(found.Kinds) {
			return one
		}
	}
	return first
}

// verify verifies all credentials of an alternative. Those that know a user
// come first, and the rest must fit to them.
func (c *check) verify(ctx context.Context, one *alternative, found *credential.Found) (*credential.Identity, verdict) {
	peer, v := c.peer(one)
	if v != allowed {
		return nil, v
	}
	c.Source = one.source
	var who *credential.Identity
	for _, part := range verifications {
		if !one.kinds.Has(part.kind) {
			continue
		}
		id, v := part.verify(c, ctx, one, found, peer)
		if v != allowed {
			return nil, v
		}
		if v := c.checkRevocation(id, c.rule.auth.invalid); v != allowed {
			return nil, v
		}
		if who, v = c.together(who, id, found); v != allowed {
			return nil, v
		}
	}
	c.notRevoked()
	return who, allowed
}

// verifications are in the order in which they know users.
var verifications = []struct {
	kind   credential.Kind
	verify func(*check, context.Context, *alternative, *credential.Found, *credential.Certificate) (*credential.Identity, verdict)
}{
	{credential.KindAccessToken, (*check).verifyAccessToken},
	{credential.KindIDToken, (*check).verifyIDToken},
	{credential.KindBasic, (*check).verifyBasic},
	{credential.KindAPIKey, (*check).verifyAPIKey},
	{credential.KindClientCertificate, (*check).verifyCertificate},
}

// peer reads the certificate of the connection, where it matters: for a
// credential of its own, or one that is bound to it.
func (c *check) peer(one *alternative) (*credential.Certificate, verdict) {
	bindable := credential.KindAccessToken | credential.KindIDToken
	if c.request.certificate == "" || one.kinds&(bindable|credential.KindClientCertificate) == 0 {
		return nil, allowed
	}
	peer, err := c.server.clients.parse(c.request.certificate)
	switch {
	case err == nil:
		return peer, allowed
	case one.kinds.Has(credential.KindClientCertificate):
		c.Cause = err
		return nil, c.refuse("client_certificate", "", credential.BadCertificate)
	}
	return nil, allowed // a token that is bound to it is refused
}

func (c *check) verifyAccessToken(ctx context.Context, one *alternative, found *credential.Found, peer *credential.Certificate) (*credential.Identity, verdict) {
	p := c.state.providers[one.accessToken]
	if v := p.verifiesAccess(c.began); v != allowed {
		return nil, c.conclude("access_token", one.accessToken, v)
	}
	var id *credential.Identity
	var err error
	if !p.opaque {
		id, err = c.verifyToken(p.access, found.AccessToken, peer)
	}
	if err == nil && (p.opaque || c.rule.auth.introspect) {
		id, err = c.confirm(ctx, p, found.AccessToken, id, peer)
	}
	if errors.Is(err, errNotIntrospected) {
		c.Cause = err
		return nil, c.conclude("access_token", one.accessToken, noIntrospection)
	}
	if err != nil {
		return nil, c.refuse("access_token", one.accessToken, err)
	}
	c.note("access_token", one.accessToken, outcomeOK)
	return id, allowed
}

// verifyToken remembers what it verified, but for requests that have not
// happened: their time is another.
func (c *check) verifyToken(v *credential.Verifier, token string, peer *credential.Certificate) (*credential.Identity, error) {
	if c.hypothesis != nil {
		return v.Verify(token, c.Time, peer)
	}
	return c.server.cache.Verify(v, token, c.Time, peer)
}

func (c *check) verifyIDToken(_ context.Context, one *alternative, found *credential.Found, peer *credential.Certificate) (*credential.Identity, verdict) {
	p := c.state.providers[one.idToken]
	if v := p.verifiesID(c.began); v != allowed {
		return nil, c.conclude("id_token", one.idToken, v)
	}
	id, err := c.verifyToken(p.id, found.IDToken, peer)
	if err != nil {
		return nil, c.refuse("id_token", one.idToken, err)
	}
	c.note("id_token", one.idToken, outcomeOK)
	return id, allowed
}

func (c *check) verifyCertificate(_ context.Context, one *alternative, _ *credential.Found, peer *credential.Certificate) (*credential.Identity, verdict) {
	id, err := one.certificates.Verify(peer, c.Time)
	if err != nil {
		return nil, c.refuse("client_certificate", "", err)
	}
	c.note("client_certificate", id.User, outcomeOK)
	return id, allowed
}

// together joins what a further credential says to what is known already. Both
// must say the same of what both know.
func (c *check) together(who, id *credential.Identity, found *credential.Found) (*credential.Identity, verdict) {
	if who == nil {
		return id, allowed
	}
	if id.Kind == credential.KindIDToken && who.Kind.Has(credential.KindAccessToken) {
		if err := credential.Match(who, id, found.AccessToken); err != nil {
			return nil, c.refuse("credentials", "", err)
		}
	}
	joined, err := who.Join(id)
	if err != nil {
		return nil, c.refuse("credentials", "", err)
	}
	return joined, allowed
}

// refuse refuses a credential, and tells the client how to come back. RFC 6750
// section 3.1 has no error for a request without any.
func (c *check) refuse(what, subject string, reason error) verdict {
	c.challenge = c.rule.auth.invalid
	switch {
	case errors.Is(reason, credential.Missing):
		c.challenge = c.rule.auth.missing
	case errors.Is(reason, credential.Busy):
		c.challenge, c.Cause = "", reason
		return c.conclude(what, subject, passwordBusy)
	}
	return c.conclude(what, subject, unauthenticated(reason.Error()))
}
