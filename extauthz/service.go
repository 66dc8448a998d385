package extauthz

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/chancery-mesh/chancery/extauthz/policy"
	"github.com/chancery-mesh/chancery/passport"
)

// judgeService goes by the caller's certificate and the user's Passport. One
// without the other is nothing: a Passport that was stolen is worth nothing to
// a caller that the route does not name, and a caller speaks for no user. Where
// a document lets in connections in the clear there is no caller; and there is
// no user either, unless it says that Passports may come that way.
func (c *check) judgeService(ctx context.Context) verdict {
	caller, clear, v := c.identifyCaller()
	if v != allowed {
		return v
	}
	if clear && !c.state.clearPassport {
		if len(c.request.headers.lines(headerPassport)) > 0 {
			return c.challengePassport("passport_in_clear")
		}
		return c.evaluate(ctx, &policy.Input{})
	}
	p, v := c.verifyPassport()
	if v != allowed {
		return v
	}
	c.user, c.tenant, c.client, c.ip = p.Subject, p.Tenant, p.Client, p.ClientIP
	return c.evaluate(ctx, &policy.Input{
		User:   policy.User{ID: p.Subject, Groups: p.Groups, Scopes: p.Scopes},
		Client: policy.Client{ID: p.Client}, Tenant: p.Tenant,
		Caller: policy.Caller{ID: c.caller, Role: string(caller.Role), Name: caller.Name},
	})
}

func (c *check) verifyPassport() (*passport.Passport, verdict) {
	lines := c.request.headers.lines(headerPassport)
	switch {
	case len(lines) == 0:
		return nil, c.challengePassport("passport_missing")
	case len(lines) > 1 || strings.Contains(lines[0], ","):
		return nil, c.challengePassport("passport_ambiguous")
	case c.state.passports == nil:
		return nil, noKeys
	}
	p, err := c.state.passports.Verify(lines[0])
	if err != nil {
		return nil, c.challengePassport(passportReason(err))
	}
	return p, allowed
}

// challengePassport refuses a Passport. RFC 9110 section 15.5.2 wants a
// challenge with each 401.
func (c *check) challengePassport(reason string) verdict {
	c.challenge = fmt.Sprintf("%s realm=%q", passport.Header, c.state.id.Name)
	return unauthenticated(reason)
}

func passportReason(err error) string {
	switch {
	case errors.Is(err, passport.ErrExpired):
		return "passport_expired"
	case errors.Is(err, passport.ErrNotYetValid):
		return "passport_not_yet_valid"
	case errors.Is(err, passport.ErrUnknownKey):
		return "passport_unknown_key"
	case errors.Is(err, passport.ErrSignature):
		return "passport_signature_invalid"
	case errors.Is(err, passport.ErrAudience):
		return "passport_audience_mismatch"
	case errors.Is(err, passport.ErrWorkload):
		return "passport_gateway_mismatch"
	case errors.Is(err, passport.ErrKeyExpired):
		return "passport_key_expired"
	case errors.Is(err, passport.ErrProvider):
		return "passport_provider_not_accepted"
	case errors.Is(err, passport.ErrTenant):
		return "passport_tenant_not_accepted"
	case errors.Is(err, passport.ErrLifetime):
		return "passport_lifetime"
	}
	return "passport_malformed"
}
