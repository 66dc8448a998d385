package controlplane_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/idptest"
	"github.com/chancery-mesh/chancery/internal/xdstest"
)

// down returns an identity provider without keys.
func down(t *testing.T) *idptest.Fake {
	t.Helper()
	idp := idptest.NewFake(t)
	idp.Answer(idptest.Keys, idptest.Text("down"))
	return idp
}

// withProvider returns documents whose gateway takes access tokens of an
// issuer.
func withProvider(issuer string, more ...string) map[string]string {
	docs := shop()
	docs["public"] = publicYAML + "authenticate: {accessToken: staff}\n"
	docs["staff"] = fmt.Sprintf("kind: IdentityProvider\nname: staff\nissuer: %s\nallowHTTP: true\nallowPrivate: true\naudiences: [shop-api]\n", issuer) +
		strings.Join(more, "\n")
	return docs
}

// provider subscribes to the provider as the gateway.
func (r *rig) provider() (*xdstest.Client, *chancerypb.Provider) {
	r.t.Helper()
	c := r.open(gateway)
	c.Subscribe(providerType, "staff")
	return c, nextProvider(r.t, c)
}

func nextProvider(t testing.TB, c *xdstest.Client) *chancerypb.Provider {
	t.Helper()
	var p chancerypb.Provider
	decode(t, c.NextACK(), &p)
	return &p
}

// withKeys waits for a provider's keys.
func withKeys(t *testing.T, c *xdstest.Client, p *chancerypb.Provider) *chancerypb.Provider {
	t.Helper()
	for len(p.GetJwks()) == 0 {
		p = nextProvider(t, c)
	}
	return p
}

func TestKeysAreFetched(t *testing.T) {
	t.Parallel()
	idp := idptest.NewFake(t)
	r := start(t, withProvider(idp.URL, "keysMaxAge: 1h\n"))
	c, p := r.provider()
	p = withKeys(t, c, p)
	if set, _, err := credential.ParseKeySet(p.GetJwks()); err != nil || set == nil {
		t.Errorf("verifiers cannot read the keys: %v", err)
	}
	fetched, until := p.GetFetchedAt().AsTime(), p.GetUsableUntil().AsTime()
	if time.Since(fetched) > time.Minute || until.Sub(fetched) != time.Hour {
		t.Errorf("fetched at %v, usable until %v", fetched, until)
	}
	if p.GetIssuer() != idp.URL || p.GetAudiences()[0] != "shop-api" || p.GetClaims().GetUser() != "sub" {
		t.Errorf("provider %v", p)
	}
	s := r.status().Providers
	if len(s) != 1 || s[0].Error != "" || s[0].UsableUntil.Sub(s[0].FetchedAt) != time.Hour {
		t.Errorf("status %+v", s)
	}
	if r.metric("chancery_provider_keys_fetched_timestamp_seconds") < float64(time.Now().Add(-time.Minute).Unix()) {
		t.Error("metrics do not show it")
	}
}

func TestKeysOutliveTheIssuerAndTheProcess(t *testing.T) {
	t.Parallel()
	idp := idptest.NewFake(t)
	r := start(t, withProvider(idp.URL))
	c, p := r.provider()
	before := withKeys(t, c, p)
	r.until("they are saved", func() bool { return r.status().Providers[0].Error == "" })
	r.stop()
	idp.Answer(idptest.Keys, idptest.Text("down"))
	r.start()
	r.until("it failed", func() bool { return r.metric("chancery_provider_keys_failures_total") > 0 })
	_, p = r.provider()
	if string(p.GetJwks()) != string(before.GetJwks()) || !p.GetFetchedAt().AsTime().Equal(before.GetFetchedAt().AsTime()) {
		t.Errorf("after the restart: fetched at %v, before at %v", p.GetFetchedAt().AsTime(), before.GetFetchedAt().AsTime())
	}
	// The document's bound holds for them.
	r.write("staff", withProvider(idp.URL, "keysMaxAge: 10m\n")["staff"])
	r.until("it does", func() bool {
		s := r.status().Providers[0]
		return s.UsableUntil.Sub(s.FetchedAt) == 10*time.Minute
	})
	// Keys of one issuer are nobody else's.
	other := down(t)
	r.write("staff", withProvider(other.URL)["staff"])
	r.until("they are gone", func() bool { s := r.status().Providers[0]; return s.Issuer == other.URL && s.FetchedAt.IsZero() })
	_, p = r.provider()
	if len(p.GetJwks()) != 0 {
		t.Error("another issuer has the keys of the first")
	}
}

func TestRemovedProviderIsForgotten(t *testing.T) {
	t.Parallel()
	idp := idptest.NewFake(t)
	r := start(t, withProvider(idp.URL))
	c, p := r.provider()
	withKeys(t, c, p)
	r.write("public", publicYAML)
	r.remove("staff")
	r.until("it is forgotten", func() bool { return len(r.status().Providers) == 0 })
	if r.metric("chancery_provider_keys_fetched_timestamp_seconds") != 0 {
		t.Error("metrics still have it")
	}
}

func TestRefreshKeys(t *testing.T) {
	t.Parallel()
	idp := idptest.NewFake(t)
	r := start(t, withProvider(idp.URL))
	c, p := r.provider()
	before := withKeys(t, c, p)
	idp.Rotate(t, false)
	providers, err := r.admin.RefreshKeys(t.Context(), "staff")
	if err != nil || len(providers) != 1 || providers[0].KeyIDs[0] != "es256-2" {
		t.Errorf("%+v, %v", providers, err)
	}
	if after := nextProvider(t, c); string(after.GetJwks()) == string(before.GetJwks()) {
		t.Error("gateways have the keys of before")
	}
	var answer *controlplane.AnswerError
	if _, err := r.admin.RefreshKeys(t.Context(), "nobody"); !errors.As(err, &answer) || answer.Status != 404 {
		t.Errorf("an unknown provider: %v", err)
	}
	idp.Answer(idptest.Keys, idptest.Text("down"))
	if providers, err = r.admin.RefreshKeys(t.Context(), ""); err != nil || providers[0].Error == "" {
		t.Errorf("a provider that is down: %+v, %v", providers, err)
	}
}
