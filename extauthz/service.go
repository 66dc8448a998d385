package extauthz

import (
	"context"
	"errors"
	"strings"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/extauthz/policy"
	"github.com/chancery-mesh/chancery/mesh"
	"github.com/chancery-mesh/chancery/passport"
)

// judgeService goes by the caller's certificate and the user's Passport. One
// without the other is nothing: a Passport that was stolen is worth nothing to
// a caller that the route does not name, and a caller speaks for no user. Where
// a document lets in connections in the clear there is no caller; and there is
// no user either, who could show what a route demands, unless it says that
// Passports may come that way.
func (c *check) judgeService(ctx context.Context) verdict {
	caller, clear, v := c.identifyCaller()
	if v != allowed {
		return c.conclude("caller", c.Caller, v)
	}
	c.note("caller", c.Caller, outcomeOK)
	in := &policy.Input{}
	if !clear {
		in.Caller = policy.Caller{ID: c.Caller, Role: string(caller.Role), Name: caller.Name}
	}
	lines := c.request.headers.lines(headerPassport)
	switch {
	case clear && !c.state.clearPassport && len(lines) > 0:
		return c.refusePassport("passport_in_clear")
	case clear && !c.state.clearPassport && c.rule.auth.demands():
		return c.refusePassport("passport_missing")
	case clear && !c.state.clearPassport, c.rule.auth.anonymous && len(lines) == 0:
		c.note("passport", "anonymous", outcomeSkipped)
		return c.evaluate(ctx, in)
	}
	p, v := c.verifyPassport(lines)
	if v != allowed {
		return v
	}
	c.Identity, c.Source, c.IP, c.Transaction = identityOf(p), p.Provider, p.ClientIP, p.ID
	c.Shown = c.Identity.Kind
	if v := c.checkRevocation(c.Identity, c.state.passportChallenge); v != allowed {
		return v
	}
	c.notRevoked()
	if v := c.acceptPassport(p); v != allowed {
		return v
	}
	in.User, in.Tenant, in.Client.ID, in.Bound = userOf(c.Identity, p.Provider), p.Tenant, p.Client, p.Bound
	return c.evaluate(ctx, in)
}

// acceptPassport judges how the user came in, and the tenant.
func (c *check) acceptPassport(p *passport.Passport) verdict {
	a := c.rule.auth
	if len(a.alternatives) > 0 && !a.isMetBy(p) {
		return c.refusePassport("passport_credentials_missing")
	}
	if v := c.checkLogin(c.Identity); v != allowed {
		return v
	}
	return c.checkTenant(p.Tenant, nil)
}

// isMetBy reports whether a Passport was minted for all credentials of one of
// the alternatives.
func (a *authentication) isMetBy(p *passport.Passport) bool {
	shown := credential.ParseKind(p.Authn)
	for i := range a.alternatives {
		one := &a.alternatives[i]
		// A Passport does not tell which Users document knew a password that came
		// with a token.
		if one.users != "" && one.source != mesh.SourceUsers(one.users) {
			continue
		}
		if shown.Has(one.kinds) && (one.namesNobody() || one.source == p.Provider) {
			return true
		}
	}
	return false
}

// namesNobody reports whether whoever vouches for the user does not matter.
func (one *alternative) namesNobody() bool {
	return one.kinds&(credential.KindAccessToken|credential.KindIDToken|credential.KindBasic) == 0
}

// identityOf returns what a Passport says of its user.
func identityOf(p *passport.Passport) *credential.Identity {
	return &credential.Identity{
		Kind: credential.ParseKind(p.Authn), Provider: p.Provider, User: p.Subject, Groups: p.Groups, Tenant: p.Tenant,
		Client: p.Client, Scopes: p.Scopes, Subject: p.CredentialSubject, OtherIDs: p.CredentialIDs, IssuedAt: p.CredentialIssuedAt,
		ACR: p.ACR, AMR: p.AMR, AuthTime: p.AuthTime, ValidUntil: p.ExpiresAt,
	}
}

func (c *check) verifyPassport(lines []string) (*passport.Passport, verdict) {
	switch {
	case len(lines) == 0:
		return nil, c.refusePassport("passport_missing")
	case len(lines) > 1 || strings.Contains(lines[0], ","):
		return nil, c.refusePassport("passport_ambiguous")
	case c.state.passports == nil:
		return nil, c.conclude("passport", "", noKeys)
	}
	p, err := c.state.passports.Verify(lines[0])
	if err != nil {
		return nil, c.refusePassport(passportReason(err))
	}
	c.note("passport", p.Gateway, outcomeOK)
	return p, allowed
}

// refusePassport refuses a Passport. RFC 9110 section 15.5.2 wants a challenge
// with each 401.
func (c *check) refusePassport(reason string) verdict {
	c.challenge = c.state.passportChallenge
	return c.conclude("passport", "", unauthenticated(reason))
}

func passportReason(err error) string {
	for _, known := range passportReasons {
		if errors.Is(err, known.err) {
			return known.reason
		}
	}
	return "passport_malformed"
}

var passportReasons = []struct {
	err    error
	reason string
}{
	{passport.ErrExpired, "passport_expired"},
	{passport.ErrNotYetValid, "passport_not_yet_valid"},
	{passport.ErrUnknownKey, "passport_unknown_key"},
	{passport.ErrSignature, "passport_signature_invalid"},
	{passport.ErrAudience, "passport_audience_mismatch"},
	{passport.ErrWorkload, "passport_gateway_mismatch"},
	{passport.ErrKeyExpired, "passport_key_expired"},
	{passport.ErrProvider, "passport_provider_not_accepted"},
	{passport.ErrTenant, "passport_tenant_not_accepted"},
	{passport.ErrLifetime, "passport_lifetime"},
}
