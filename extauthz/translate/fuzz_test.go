package translate_test

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/tools/txtar"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/revocation"
	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
)

// What documents are taken for good are policies that can be decided by, and none
// of them lets in a stranger where nothing says so.
func FuzzDocuments(f *testing.F) {
	for _, glob := range []string{"../../mesh/testdata/good/*", "../../envoy/testdata/*.txtar"} {
		names, err := filepath.Glob(glob)
		if err != nil || len(names) == 0 {
			f.Fatal(glob, err)
		}
		for _, name := range names {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(archive.Files[0].Data))
		}
	}
	s, err := extauthz.New(extauthz.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := mesh.Parse("a.yaml", []byte(text)).Compile(extauthz.DocumentOptions())
		if err != nil {
			return
		}
		for _, g := range m.Gateways {
			s.SetState(stateOf(t, translate.Gateway(m, g)))
			for _, r := range g.Routes {
				id := r.ID()
				if to, ok := r.ToVariable(); ok {
					services := m.Destinations(g)
					if len(services) == 0 {
						continue
					}
					r.Match.Path = r.Match.Path.Substitute(map[string]string{to: services[0].Name})
				}
				if allows(t, s, "gateway/"+g.Name, id, r.Match) && !r.Authentication.Anonymous {
					t.Errorf("gateway %s, route %s: lets in anybody", g.Name, id)
				}
			}
		}
		for _, service := range m.Services {
			s.SetState(stateOf(t, translate.Service(m, service)))
			for _, r := range service.Routes {
				if allows(t, s, "service/"+service.Name, r.ID(), r.Match) && !r.Plaintext {
					t.Errorf("service %s, route %s: lets in anybody", service.Name, r.ID())
				}
			}
		}
	})
}

func stateOf(t *testing.T, p *chancerypb.Policy) *extauthz.State {
	t.Helper()
	rules, err := extauthz.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	state, err := rules.With(extauthz.Keys{Revocations: &revocation.Index{}})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// allows sends a request that a route matches, with nothing in it that says who
// makes it.
func allows(t *testing.T, s *extauthz.Server, policy, route string, match mesh.Match) bool {
	t.Helper()
	path := match.Path
	for _, name := range path.Variables() {
		path = path.Substitute(map[string]string{name: "a"})
	}
	target := strings.TrimSuffix(path.String(), "/**")
	if target == "" {
		target = "/"
	}
	method := match.Method
	if method == "" {
		method = "GET"
	}
	response, err := s.Check(t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "192.0.2.1"},
		}}},
		Request:           &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: method, Path: target, Host: "api.test"}},
		ContextExtensions: map[string]string{"policy": policy, "route": route},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if reason := response.GetDynamicMetadata().GetFields()["reason"].GetStringValue(); strings.HasPrefix(reason, "unknown") || reason == "route_mismatch" {
		t.Errorf("%s, route %s: %s is %s", policy, route, target, reason)
	}
	return response.GetOkResponse() != nil
}
