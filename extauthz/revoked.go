package extauthz

import (
	"time"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/extauthz/revocation"
)

// checkRevocation refuses what was revoked, also if it was verified before. It
// goes by what a credential says, at services by what its Passport says of it.
func (c *check) checkRevocation(id *credential.Identity, challenge string) verdict {
	if c.state.revocations == nil {
		return c.conclude("revocation", "", noRevocations)
	}
	entry, revoked := c.state.revocations.Find(revocation.Credential{
		Provider: providerOf(id), User: id.User, Subject: id.Subject, Token: id.ID, Others: id.OtherIDs,
		Client: id.Client, Tenant: id.Tenant, IssuedAt: id.IssuedAt,
	}, c.Time)
	if !revoked {
		return allowed
	}
	c.challenge = challenge
	return c.conclude("revocation", entry, unauthenticated("token_revoked"))
}

// notRevoked notes that there are revocations, and none of them is about this.
func (c *check) notRevoked() {
	if c.state.revocations.Len() > 0 {
		c.note("revocation", "", outcomeOK)
	}
}

// providerOf returns the identity provider that vouches. A Users document, which
// does so for a password, may have the name of one.
func providerOf(id *credential.Identity) string {
	if id.Kind == credential.KindBasic {
		return ""
	}
	return id.Provider
}

// isStale reports whether something newer than the state may have been there for
// longer than its document bears.
func (c *check) isStale() bool {
	if c.state.maxStaleness == 0 || c.server.contact == nil {
		return false
	}
	since := sinceContact(c.server.contact(), c.began)
	return since < 0 || since > c.state.maxStaleness
}

// sinceContact is how long ago contact was made, by the clock that makes it
// longer: one does not count while the host sleeps, the other may be set.
func sinceContact(contact, now time.Time) time.Duration {
	return max(now.Sub(contact), now.Round(0).Sub(contact.Round(0)))
}
