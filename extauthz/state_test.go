package extauthz_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

func TestNewStateRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*fixture){
		"no name":         func(f *fixture) { f.gateway.Name, f.service.Name = "", "" },
		"unknown role":    func(f *fixture) { f.gateway.Name, f.service.Name = "x/public", "x/orders" },
		"no trust domain": func(f *fixture) { f.gateway.TrustDomain, f.service.TrustDomain = "", "" },
		"minting by a service, at the gateway for less than no time": func(f *fixture) {
			f.service.Minting, f.gateway.Minting = f.gateway.GetMinting(), &chancerypb.Minting{Lifetime: durationpb.New(-1)}
		},
		"rule does not parse": func(f *fixture) { f.gateway.Routes[0].Allow, f.service.Routes[0].Allow = "(", "(" },
		"rule has a wrong type": func(f *fixture) {
			f.gateway.Routes[0].Allow, f.service.Routes[0].Allow = "user.id", "user.grups"
		},
		"path": func(f *fixture) { f.gateway.Routes[0].Path, f.service.Routes[0].Path = "orders", "/a/../b" },
		"route twice": func(f *fixture) {
			f.gateway.Routes = append(f.gateway.Routes, f.gateway.Routes[0])
			f.service.Routes = append(f.service.Routes, f.service.Routes[0])
		},
		"route without name": func(f *fixture) { f.gateway.Routes[0].Name, f.service.Routes[0].Name = "", "" },
		"lifetime below a second, no rule": func(f *fixture) {
			f.gateway.Minting.Lifetime = durationpb.New(time.Millisecond)
			f.service.Routes[0].Allow = ""
		},
		"negative lifetime, foreign caller": func(f *fixture) {
			f.gateway.Minting.Lifetime = durationpb.New(-time.Second)
			f.service.Routes[0].Callers = []string{"spiffe://evil.example/gateway/public"}
		},
		"provider not listed, keys of another": func(f *fixture) {
			f.gateway.Providers = nil
			f.keys.SpiffeId = "spiffe://shop.example/gateway/partner"
		},
		"provider invalid, keys invalid": func(f *fixture) {
			f.provider.Jwks, f.keys.Jwks = []byte(`{"keys":[]}`), []byte(`{"keys":[{}]}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			change(f)
			if _, err := newState(f.gateway, f.keysOf()); err == nil {
				t.Error("gateway: accepted")
			}
			if _, err := newState(f.service, f.keysOf()); err == nil {
				t.Error("service: accepted")
			}
		})
	}
	if _, err := newState(nil, extauthz.Keys{}); err == nil {
		t.Error("nil: accepted")
	}
}

// What tokens must be like is in the policy; a provider's keys, which come on
// their own way, say nothing of it, and those of another issuer are none.
func TestPolicyDescribesProviders(t *testing.T) {
	t.Parallel()
	ok, noKeys := outcome{200, "allowed", ""}, outcome{503, "no_keys", ""}
	for name, row := range map[string]struct {
		served func(p *chancerypb.Provider)
		want   outcome
	}{
		"the same":       {func(*chancerypb.Provider) {}, ok},
		"an older one":   {func(p *chancerypb.Provider) { p.Audiences, p.Claims = []string{"other"}, nil }, ok},
		"another issuer": {func(p *chancerypb.Provider) { p.Issuer = "https://old.test" }, noKeys},
		"another's keys": {func(p *chancerypb.Provider) { p.Name = "partners" }, noKeys},
	} {
		f := newFixture(t)
		rules, err := extauthz.Compile(described(f.gateway, f.provider))
		if err != nil {
			t.Fatal(err)
		}
		keys := f.keysOf()
		keys.Providers = []*chancerypb.Provider{proto.CloneOf(f.provider)}
		row.served(keys.Providers[0])
		state, err := rules.With(keys)
		if err != nil {
			t.Fatal(err)
		}
		if _, got := check(t, f.server(t, state), f.atGateway(t).request()); got != row.want {
			t.Errorf("%s: %+v, want %+v", name, got, row.want)
		}
	}
}

func TestNewStateIgnoresWhatIsNotReferredTo(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	broken := &chancerypb.Provider{Name: "other", Jwks: []byte("{")}
	if _, err := newState(f.gateway, extauthz.Keys{Providers: []*chancerypb.Provider{broken, f.provider}}); err != nil {
		t.Error(err)
	}
	foreign := proto.CloneOf(f.keys)
	foreign.Gateway, foreign.Jwks = "partner", []byte("{")
	if _, err := newState(f.service, extauthz.Keys{Passports: []*chancerypb.PassportKeys{foreign, f.keys}}); err != nil {
		t.Error(err)
	}
}

// On routes of the policy before, nobody vouches whom the new one does not take.
func TestNobodyVouchesAfterThePolicyBefore(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		change func(gateway *chancerypb.Policy, service *chancerypb.Policy)
		want   outcome
	}{
		"the same": {func(*chancerypb.Policy, *chancerypb.Policy) {}, outcome{200, "allowed", ""}},
		"gone": {func(gateway, service *chancerypb.Policy) {
			gateway.Providers, service.Gateways = nil, nil
		}, outcome{503, "no_keys", ""}},
		"another of that name": {func(gateway, service *chancerypb.Policy) {
			gateway.Providers[0] = &chancerypb.Provider{Name: "staff", Issuer: "https://new.test", Audiences: []string{"shop-api"}}
			service.Gateways = []string{"partner"}
		}, outcome{503, "no_keys", ""}},
	} {
		f := newFixture(t)
		gateway, service := described(f.gateway, f.provider), proto.CloneOf(f.service)
		row.change(gateway, service)
		for before, now := range map[*chancerypb.Policy]*chancerypb.Policy{described(f.gateway, f.provider): gateway, f.service: service} {
			now.Routes = nil
			c := f.atGateway(t)
			if strings.HasPrefix(now.GetName(), "service/") {
				c = f.atService(t)
			}
			if got := decideAfter(t, f, before, now, c); got != row.want {
				t.Errorf("%s, %s: %+v, want %+v", now.GetName(), name, got, row.want)
			}
		}
	}
}

// decideAfter decides by now, and by before about routes that only it has.
func decideAfter(t *testing.T, f *fixture, before, now *chancerypb.Policy, c call) outcome {
	t.Helper()
	earlier, err := extauthz.Compile(before)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := extauthz.Compile(now)
	if err != nil {
		t.Fatal(err)
	}
	state, err := rules.With(f.keysOf())
	if err != nil {
		t.Fatal(err)
	}
	if state, err = state.After(earlier, f.keysOf()); err != nil {
		t.Fatal(err)
	}
	_, got := check(t, f.server(t, state), c.request())
	return got
}

// While Envoy may still ask for routes of the policy before, these are decided by
// it and all that belongs to it: no decision mixes two revisions.
func TestRoutesOfThePolicyBefore(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const always = "package p\n\nallow if data.switch.open\n"
	policy := func(open string, routes ...*chancerypb.RoutePolicy) *extauthz.Rules {
		p := proto.CloneOf(f.gateway)
		p.Routes, p.Data = routes, map[string][]byte{"switch": []byte(`{"open":` + open + `}`)}
		p.Rego = []*chancerypb.Rego{{Name: "p", Modules: []*chancerypb.RegoModule{{File: "p.rego", Text: always}}}}
		if open == "true" {
			p.Roles = []*chancerypb.Role{{Name: "clerk", Groups: []string{"sales"}}}
		}
		rules, err := extauthz.Compile(described(p, f.provider))
		if err != nil {
			t.Fatal(err)
		}
		return rules
	}
	route := func(name string, change func(*chancerypb.RoutePolicy)) *chancerypb.RoutePolicy {
		r := &chancerypb.RoutePolicy{Name: name, Path: "/" + name, Authentication: token("staff")}
		change(r)
		return r
	}
	data := func(r *chancerypb.RoutePolicy) { r.Allow = "data.switch.open == true" }
	rego := func(r *chancerypb.RoutePolicy) { r.Rego = &chancerypb.RegoRule{Module: "p", Query: "data.p.allow"} }
	roles := func(r *chancerypb.RoutePolicy) { r.Allow = "'clerk' in user.roles" }
	before := policy("false", route("shared", data), route("old-data", data), route("old-rego", rego), route("old-roles", roles))
	rules := policy("true", route("shared", data), route("new", roles))
	now, err := rules.With(f.keysOf())
	if err != nil {
		t.Fatal(err)
	}
	both, err := now.After(before, f.keysOf())
	if err != nil {
		t.Fatal(err)
	}
	alone, err := before.With(f.keysOf())
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct{ both, now, alone outcome }{
		"shared":    {outcome{200, "allowed", ""}, outcome{200, "allowed", ""}, outcome{403, "policy_denied", ""}},
		"new":       {outcome{200, "allowed", ""}, outcome{200, "allowed", ""}, outcome{503, "unknown_route", ""}},
		"old-data":  {outcome{403, "policy_denied", ""}, outcome{503, "unknown_route", ""}, outcome{403, "policy_denied", ""}},
		"old-rego":  {outcome{403, "policy_denied", ""}, outcome{503, "unknown_route", ""}, outcome{403, "policy_denied", ""}},
		"old-roles": {outcome{403, "policy_denied", ""}, outcome{503, "unknown_route", ""}, outcome{403, "policy_denied", ""}},
		"nowhere":   {outcome{503, "unknown_route", ""}, outcome{503, "unknown_route", ""}, outcome{503, "unknown_route", ""}},
	} {
		c := f.atGateway(t)
		c.route, c.path = name, "/"+name
		decide := func(state *extauthz.State, want outcome) (revision string) {
			t.Helper()
			s, err := extauthz.New(extauthz.Config{
				Logger: slog.New(slog.DiscardHandler), Signer: func() *passport.Signer { return f.signer },
				Record: func(r *extauthz.Record) error {
					revision = r.Revision
					return nil
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			s.SetState(state)
			if _, got := check(t, s, c.request()); got != want {
				t.Errorf("%s: %+v, want %+v", name, got, want)
			}
			return revision
		}
		got, revision, old := decide(both, row.both), decide(now, row.now), decide(alone, row.alone)
		if strings.HasPrefix(name, "old") {
			revision = old
		}
		if got != revision {
			t.Errorf("%s: decided by revision %s, want %s", name, got, revision)
		}
	}
}
