package controlplane_test

import (
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/idptest"
	"github.com/chancery-mesh/chancery/internal/xdstest"
)

// withAudience changes the audience of the identity provider's document.
func withAudience(docs map[string]string, audience string) string {
	return strings.Replace(docs["staff"], "[shop-api]", "["+audience+"]", 1)
}

// audience waits until a stream is given the provider with an audience; then it
// acknowledges that, or rejects it.
func audience(t *testing.T, c *xdstest.Client, audience, nack string) {
	t.Helper()
	for {
		resp := c.Next()
		var p chancerypb.Provider
		decode(t, resp, &p)
		if p.GetAudiences()[0] == audience {
			if nack != "" {
				c.NACK(resp, nack)
				return
			}
			c.ACK(resp)
			return
		}
		c.ACK(resp)
	}
}

func TestRejectedProviderGoesBack(t *testing.T) {
	t.Parallel()
	docs := withProvider(idptest.NewFake(t).URL)
	r := start(t, docs)
	c, p := r.provider()
	withKeys(t, c, p)
	revision := r.view(gateway).Revision
	r.write("staff", withAudience(docs, "bad"))
	audience(t, c, "bad", "audience does not compile")
	audience(t, c, "shop-api", "")
	before := r.status().Quarantine
	if len(before) != 1 || before[0].Document != "IdentityProvider/staff" || before[0].TypeURL != providerType ||
		before[0].View != "all views" || !before[0].Previous || before[0].Proxy != gateway.String()+"/1" {
		t.Errorf("quarantine %+v", before)
	}
	if got := r.view(gateway).Revision; got != revision {
		t.Errorf("revision %s, was %s", got, revision)
	}

	r.restart(nil)
	if diff := cmp.Diff(before, r.status().Quarantine); diff != "" {
		t.Errorf("quarantine (-before +after a restart):\n%s", diff)
	}
	c, p = r.provider()
	if got := p.GetAudiences()[0]; got != "shop-api" {
		t.Errorf("audience %s after a restart", got)
	}
	withKeys(t, c, p)
	r.write("staff", withAudience(docs, "good"))
	audience(t, c, "good", "")
	if q := r.status().Quarantine; len(q) != 0 {
		t.Errorf("quarantine %+v", q)
	}
}

func TestRejectedProvidersThatStay(t *testing.T) {
	t.Parallel()
	docs := withProvider(idptest.NewFake(t).URL)
	tests := map[string]func(*testing.T, *rig){
		"somebody else took it": func(t *testing.T, r *rig) {
			c, p := r.provider()
			withKeys(t, c, p)
			other, p := r.provider()
			withKeys(t, other, p)
			r.write("staff", withAudience(docs, "new"))
			audience(t, other, "new", "")
			revisionOf(t, other) // what it said before was heard
			audience(t, c, "new", "no")
		},
		"there is nothing else": func(t *testing.T, r *rig) {
			c := r.open(gateway)
			c.Subscribe(providerType, "staff")
			c.NACK(c.Next(), "no")
		},
	}
	for name, reject := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, docs)
			reject(t, r)
			r.until("it is told", func() bool { return r.log.has("resources rejected") })
			if q := r.status().Quarantine; len(q) != 0 {
				t.Errorf("quarantine %+v", q)
			}
			if s := r.status(); len(s.Providers) != 1 || len(s.Views) != 3 {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// One gateway that rejects a provider, or says what it was never sent, undoes it
// for nobody else.
func TestProviderGoesBackWhenAllGatewaysRejectIt(t *testing.T) {
	t.Parallel()
	docs := withProvider(idptest.NewFake(t).URL)
	docs["partner"] = strings.NewReplacer("name: public", "name: partner", ":8080", ":8081").Replace(docs["public"])
	r := start(t, docs)
	partner := identity.ID{Role: identity.RoleGateway, Name: "partner"}
	c, p := r.provider()
	withKeys(t, c, p)
	other := r.open(partner)
	other.Subscribe(providerType, "staff")
	withKeys(t, other, nextProvider(t, other))
	r.write("staff", withAudience(docs, "new"))
	audience(t, other, "new", "no")
	for _, id := range []identity.ID{orders, partner, gateway} {
		r.reject(id, providerType, "no", "staff") // nobody's Envoy was sent it
	}
	if q := r.status().Quarantine; len(q) != 0 {
		t.Errorf("quarantine %+v", q)
	}
	audience(t, c, "new", "no")
	audience(t, c, "shop-api", "")
	if q := r.status().Quarantine; len(q) != 1 {
		t.Errorf("quarantine %+v", q)
	}
}

// Only the acknowledgement of the very version says that it is good.
func TestWhatAcceptsNoProvider(t *testing.T) {
	t.Parallel()
	docs := withProvider(idptest.NewFake(t).URL)
	r := start(t, docs)
	c, p := r.provider()
	withKeys(t, c, p)
	r.write("staff", withAudience(docs, "old"))
	old := c.Next()
	r.write("staff", withAudience(docs, "new"))
	r.until("there is a newer one", func() bool { return r.log.count("documents served") == 3 })
	c.ACK(old)
	bad := c.Next()
	c.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: providerType}) // no answer to that, but it gets one
	empty := c.Next()
	c.NACK(bad, "no")
	c.ACK(empty)
	audience(t, c, "shop-api", "")
	if q := r.status().Quarantine; len(q) != 1 {
		t.Errorf("quarantine %+v", q)
	}
}

func TestAcceptedProviderIsForgottenWithIt(t *testing.T) {
	t.Parallel()
	docs := withProvider(idptest.NewFake(t).URL)
	r := start(t, docs)
	c, p := r.provider()
	withKeys(t, c, p)
	r.write("public", publicYAML)
	r.remove("staff")
	r.until("it is gone", func() bool { return len(r.status().Providers) == 0 })
	r.write("staff", withAudience(docs, "other"))
	r.write("public", docs["public"])
	c = r.open(gateway)
	r.until("it is there again", func() bool { return len(r.status().Providers) == 1 })
	c.Subscribe(providerType, "staff")
	c.NACK(c.Next(), "no")
	r.until("it is told", func() bool { return r.log.has("resources rejected") })
	if q := r.status().Quarantine; len(q) != 0 {
		t.Errorf("quarantine %+v", q)
	}
}
