package extauthz

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/extauthz/policy"
	"github.com/chancery-mesh/chancery/passport"
)

// judgeGateway goes from the external credential to a Passport.
func (c *check) judgeGateway(ctx context.Context) verdict {
	id, v := c.authenticate()
	if v != allowed {
		return v
	}
	c.user, c.tenant, c.client = id.User, id.Tenant, id.Client
	if _, ok := c.state.tenants[id.Tenant]; !ok && len(c.state.tenants) > 0 {
		return tenantNotAccepted
	}
	v = c.evaluate(ctx, &policy.Input{
		User:   policy.User{ID: id.User, Groups: id.Groups, Scopes: id.Scopes},
		Client: policy.Client{ID: id.Client}, Tenant: id.Tenant,
	})
	if v != allowed || !c.state.mints {
		return v
	}
	return c.mint(id)
}

func (c *check) authenticate() (*credential.Identity, verdict) {
	token, err := credential.Bearer(c.request.headers.lines(headerAuthorization))
	if err == nil && hasTokenInQuery(c.request.query) {
		err = credential.Ambiguous
	}
	if err == nil && c.rule.provider == "" {
		err = credential.Unsupported
	}
	if err != nil {
		return nil, c.challengeBearer(err)
	}
	p := c.state.access[c.rule.provider]
	switch {
	case p.verifier == nil:
		return nil, noKeys
	case !c.now.Before(p.usableUntil):
		return nil, staleKeys
	}
	id, err := c.server.cache.Verify(p.verifier, token, c.now, nil)
	if err != nil {
		return nil, c.challengeBearer(err)
	}
	return id, allowed
}

// challengeBearer refuses a credential, and tells the client how to come back.
// RFC 6750 section 3.1 has no error for a request without any.
func (c *check) challengeBearer(reason error) verdict {
	c.challenge = fmt.Sprintf("Bearer realm=%q", c.state.id.Name)
	if !errors.Is(reason, credential.Missing) {
		c.challenge += `, error="invalid_token"`
	}
	return unauthenticated(reason.Error())
}

// hasTokenInQuery finds the other place that RFC 6750 has for access tokens.
// It is never read; but beside one in a header, a service might.
func hasTokenInQuery(query string) bool {
	if query == "" {
		return false
	}
	// What does not decode is no parameter.
	values, _ := url.ParseQuery(query)
	return values.Has("access_token")
}

// mint makes the Passport that the request goes on with.
func (c *check) mint(id *credential.Identity) verdict {
	signer := c.server.signer()
	if signer == nil {
		return noSigningKey
	}
	token, err := signer.Mint(&passport.Passport{
		ID: c.requestID, Subject: id.User, Scopes: id.Scopes, Audience: c.state.trustDomain,
		Gateway: c.state.id.SPIFFE(c.state.trustDomain), IssuedAt: c.now, ExpiresAt: c.now.Add(c.state.lifetime),
		Provider: c.rule.provider, Tenant: id.Tenant, Groups: id.Groups, Client: id.Client, ClientIP: c.ip, Authn: "access_token",
	})
	switch {
	case errors.Is(err, passport.ErrTooLarge):
		return passportTooLarge
	case err != nil:
		c.cause = err
		return internalError
	}
	c.passport = token
	return allowed
}
