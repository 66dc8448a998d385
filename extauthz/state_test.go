package extauthz_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
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
