package extauthz

import (
	"context"
	"errors"
	"slices"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/extauthz/policy"
	"github.com/chancery-mesh/chancery/passport"
)

// judgeGateway goes from external credentials to a Passport.
func (c *check) judgeGateway(ctx context.Context) verdict {
	id, v := c.authenticate(ctx)
	if v != allowed {
		return v
	}
	in := &policy.Input{}
	if id != nil {
		c.Identity = id
		if v := c.accept(id); v != allowed {
			return v
		}
		in.User, in.Tenant = userOf(id, c.Source), id.Tenant
		in.Client.ID = id.Client
		in.Client.Owner, in.Client.Plan = c.state.accounts.clientOf(id.Client)
	}
	if v := c.evaluate(ctx, in); v != allowed {
		return v
	}
	c.strips = c.state.mints()
	if id == nil || !c.strips {
		return allowed
	}
	return c.mint(ctx, id, in)
}

func userOf(id *credential.Identity, source string) policy.User {
	return policy.User{
		ID: id.User, Groups: id.Groups, Scopes: id.Scopes, ACR: id.ACR, AMR: id.AMR, AuthTime: id.AuthTime,
		Provider: source,
	}
}

// accept judges whoever came in: the login, the tenant, the client.
func (c *check) accept(id *credential.Identity) verdict {
	if v := c.checkLogin(id); v != allowed {
		return v
	}
	if v := c.checkTenant(id.Tenant, c.tenantsOfProvider()); v != allowed {
		return v
	}
	return c.checkClient(id)
}

// checkLogin judges how and when the user logged in, where the route says how.
func (c *check) checkLogin(id *credential.Identity) verdict {
	a := c.rule.auth
	if !a.demandsLogin() {
		return allowed
	}
	v := a.login(id, c.Time)
	if v != allowed {
		c.challenge = a.stepUp
	}
	return c.conclude("login", id.ACR, v)
}

// checkTenant judges the tenant, which may be empty: it must be among those of the
// gateway, and of who vouches for the user. None is any.
func (c *check) checkTenant(tenant string, ofProvider []string) verdict {
	if tenant == "" && c.rule.auth.tenant {
		return c.conclude("tenant", "", tenantMissing)
	}
	_, ok := c.state.tenants[tenant]
	if !ok && len(c.state.tenants) > 0 || len(ofProvider) > 0 && !slices.Contains(ofProvider, tenant) {
		return c.conclude("tenant", tenant, tenantForbidden)
	}
	c.note("tenant", tenant, outcomeOK)
	return allowed
}

// tenantsOfProvider are those that the identity provider of the user may speak for.
// Without it one issuer could name users of any.
func (c *check) tenantsOfProvider() []string {
	if p := c.state.providers[c.Source]; p != nil {
		return p.GetTenants()
	}
	return nil
}

// mint makes the Passport that the request goes on with.
func (c *check) mint(ctx context.Context, id *credential.Identity, in *policy.Input) verdict {
	bound, v := c.bind(ctx, in)
	if v != allowed {
		return v
	}
	signer := c.server.signer()
	if signer == nil {
		return c.conclude("passport", "", noSigningKey)
	}
	if c.hypothesis != nil {
		c.note("passport", "", outcomeSkipped)
		return allowed
	}
	token, err := signer.Mint(&passport.Passport{
		ID: c.RequestID, Subject: id.User, Scopes: id.Scopes, Audience: c.state.trustDomain,
		Gateway: c.state.spiffeID, IssuedAt: c.Time, ExpiresAt: c.Time.Add(c.state.lifetime),
		Provider: c.Source, Tenant: id.Tenant, Groups: id.Groups, Client: id.Client, Bound: bound,
		ClientIP: c.IP, Authn: id.Kind.String(),
		ACR: id.ACR, AMR: id.AMR, AuthTime: id.AuthTime, CredentialIDs: idsOf(id), CredentialSubject: subjectOf(id), CredentialIssuedAt: id.IssuedAt,
	})
	switch {
	case errors.Is(err, passport.ErrTooLarge):
		return c.conclude("passport", "", passportTooBig)
	case err != nil:
		c.Cause = err
		return c.conclude("passport", "", internalError)
	}
	c.passport, c.Transaction = token, c.RequestID
	c.note("passport", "", outcomeOK)
	return allowed
}

// idsOf returns those of all credentials that were shown.
func idsOf(id *credential.Identity) []string {
	if id.ID == "" {
		return id.OtherIDs
	}
	return append([]string{id.ID}, id.OtherIDs...)
}

// subjectOf returns `sub`, where the user is another claim.
func subjectOf(id *credential.Identity) string {
	if id.Subject == id.User {
		return ""
	}
	return id.Subject
}

// bind returns the facts of the call that the Passport carries.
func (c *check) bind(ctx context.Context, in *policy.Input) (map[string]string, verdict) {
	if len(c.rule.bind) == 0 {
		return nil, allowed
	}
	bound := make(map[string]string, len(c.rule.bind))
	for name, program := range c.rule.bind {
		fact, err := program.Bind(ctx, in)
		if err != nil {
			c.Cause = err
			return nil, c.conclude("bind", name, bindingError)
		}
		bound[name] = fact
	}
	c.note("bind", "", outcomeOK)
	return bound, allowed
}
