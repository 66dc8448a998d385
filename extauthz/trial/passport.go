package trial

import (
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
	"github.com/chancery-mesh/chancery/passport"
)

func newSigner() (*passport.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return passport.NewSigner(key)
}

// passportKeys are those of all gateways, as the control plane would endorse them.
func (c *Court) passportKeys() ([]*chancerypb.PassportKeys, error) {
	var all []*chancerypb.PassportKeys
	for _, g := range c.mesh.Gateways {
		signer, owner := c.gateways[g.Name], spiffeID(c.mesh, g.Name)
		jwks, err := json.Marshal(passport.KeySet{signer.KeyID(): {
			Owner: owner, Public: signer.Public(), Until: time.Now().Add(24 * time.Hour),
			Providers: translate.MayVouch(g), Tenants: g.Tenants,
		}})
		if err != nil {
			return nil, err
		}
		all = append(all, &chancerypb.PassportKeys{Gateway: g.Name, SpiffeId: owner, Jwks: jwks})
	}
	return all, nil
}

// passport makes the Passport of a case, or none. It is verified by the clock
// of now, whatever time the case supposes.
func (c *Court) passport(t *mesh.Test, k *mesh.TestCase, at time.Time) (string, error) {
	who := k.With.Passport
	if who == nil {
		return "", nil
	}
	g := c.mintedAt(t, k)
	if g == nil {
		return "", errors.New("has a Passport, but the service takes those of no gateway")
	}
	now := time.Now()
	return c.gateways[g.Name].Mint(&passport.Passport{
		ID: rand.Text(), Subject: who.User, Scopes: who.Scopes, Audience: c.mesh.TrustDomain, Gateway: spiffeID(c.mesh, g.Name),
		IssuedAt: now, ExpiresAt: now.Add(c.mesh.PassportLifetime),
		Provider: cmp.Or(who.Provider, c.firstIssuer(g)), Tenant: who.Tenant, Groups: who.Groups, Client: who.Client,
		ClientIP: k.Request.IP, Authn: strings.Join(k.With.Shown, "+"), Bound: k.With.Bound,
		ACR: who.ACR, AMR: who.AMR, AuthTime: at.Add(-who.LoggedIn),
	})
}

// firstIssuer returns the first identity provider that the Passports of a gateway
// may name; none if there is none.
func (c *Court) firstIssuer(g *mesh.Gateway) string {
	for _, name := range translate.MayVouch(g) {
		if c.providers[name] != nil {
			return name
		}
	}
	return ""
}

// mintedAt returns the gateway that calls, or else the first whose Passports the
// service takes.
func (c *Court) mintedAt(t *mesh.Test, k *mesh.TestCase) *mesh.Gateway {
	if g := c.mesh.Gateway(k.Caller); g != nil {
		return g
	}
	taken := c.mesh.Service(t.Service).Gateways
	i := slices.IndexFunc(c.mesh.Gateways, func(g *mesh.Gateway) bool { return slices.Contains(taken, g.Name) })
	if i < 0 {
		return nil
	}
	return c.mesh.Gateways[i]
}
