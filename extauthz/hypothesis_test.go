package extauthz_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

// asked counts the questions to identity providers, whose answer is always yes.
type asked struct{ times int }

func (a *asked) Introspect(context.Context, *chancerypb.Provider, string, string, time.Time) (*credential.Identity, error) {
	a.times++
	return &credential.Identity{Kind: credential.KindAccessToken, User: "alice", Tenant: "acme", Client: "web"}, nil
}

// steps are what a decision looked at.
func steps(r *extauthz.Record) string {
	var all []string
	for _, s := range r.Steps() {
		all = append(all, strings.TrimSpace(s.What+" "+s.Subject)+" "+s.Outcome)
	}
	return strings.Join(all, ", ")
}

// A request that has not happened is decided like one that has, and nothing comes
// of it: no Passport, no question, no record, no count.
func TestExplain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.provider.Introspection = &chancerypb.Introspection{Endpoint: "https://idp.test/introspect", Client: "pdp", Secret: "s"}
	f.gateway.Routes = append(f.gateway.Routes,
		&chancerypb.RoutePolicy{Name: "critical", Path: "/critical", Authentication: func() *chancerypb.Authentication {
			a := token("staff")
			a.Introspect = true
			return a
		}()},
		&chancerypb.RoutePolicy{Name: "at-night", Path: "/night", Authentication: token("staff"), Allow: "now.getHours() < 6"})
	bearer := extauthz.HypotheticalHeader{Name: "Authorization", Value: "Bearer " + f.token(t, nil)}
	pass := extauthz.HypotheticalHeader{Name: "Txn-Token", Value: f.passport(t, unchanged)}
	night := time.Now().UTC().Truncate(24 * time.Hour).Add(27 * time.Hour)
	for name, row := range map[string]struct {
		state *extauthz.State
		h     extauthz.Hypothesis
		want  string
		steps string
	}{
		"allowed at a gateway": {
			f.gatewayState(t),
			extauthz.Hypothesis{Target: "/orders/1?x=y", Headers: []extauthz.HypotheticalHeader{bearer}},
			"200 allowed orders",
			"route orders ok, credential access_token found, access_token staff ok, tenant acme ok, rule skipped, passport skipped",
		},
		"without a credential": {
			f.gatewayState(t),
			extauthz.Hypothesis{Target: "/orders/1"},
			"401 credential_missing orders", "route orders ok, credential credential_missing",
		},
		"on no route": {
			f.gatewayState(t), extauthz.Hypothesis{Target: "/other"}, "403 route_mismatch ", "route route_mismatch",
		},
		"where the provider is asked": {
			f.gatewayState(t),
			extauthz.Hypothesis{Target: "/critical", Headers: []extauthz.HypotheticalHeader{bearer}},
			"200 allowed critical",
			"route critical ok, credential access_token found, introspection staff skipped, access_token staff ok, tenant acme ok, rule skipped, passport skipped",
		},
		"at another time": {
			f.gatewayState(t),
			extauthz.Hypothesis{Target: "/night", Time: night, Headers: []extauthz.HypotheticalHeader{{
				Name: "authorization", Value: "Bearer " + f.token(t, map[string]any{"exp": night.Add(time.Hour).Unix()}),
			}}},
			"200 allowed at-night",
			"route at-night ok, credential access_token found, access_token staff ok, tenant acme ok, rule ok, passport skipped",
		},
		"beside a service": {
			f.serviceState(t),
			extauthz.Hypothesis{Target: "/orders/1", Caller: "gateway/public", Headers: []extauthz.HypotheticalHeader{pass}},
			"200 allowed get-order",
			"route get-order ok, caller_certificate skipped, caller spiffe://shop.example/gateway/public ok, passport spiffe://shop.example/gateway/public ok, tenant acme ok, rule ok",
		},
		"by a caller that may not": {
			f.serviceState(t),
			extauthz.Hypothesis{Target: "/orders/1", Caller: "spiffe://shop.example/service/other", Headers: []extauthz.HypotheticalHeader{pass}},
			"403 caller_not_allowed get-order",
			"route get-order ok, caller spiffe://shop.example/service/other caller_not_allowed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ask, registry, recorded := &asked{}, prometheus.NewRegistry(), 0
			s, err := extauthz.New(extauthz.Config{
				Logger: slog.New(slog.DiscardHandler), Signer: func() *passport.Signer { return f.signer },
				Introspector: ask, Registerer: registry, Record: func(*extauthz.Record) error { recorded++; return nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			s.SetState(row.state)
			row.h.Method, row.h.IP = "GET", "192.0.2.1"
			r := s.Explain(t.Context(), &row.h)
			if got := fmt.Sprintf("%d %s %s", r.Status, r.Reason, r.Route); got != row.want {
				t.Errorf("decided %q, want %q; %v", got, row.want, r.Cause)
			}
			if got := steps(r); got != row.steps {
				t.Errorf("looked at %q, want %q", got, row.steps)
			}
			families, err := registry.Gather()
			for _, m := range families {
				if m.GetName() == "chancery_checks_total" || m.GetMetric()[0].GetHistogram().GetSampleCount() > 0 {
					t.Errorf("%s counts it", m.GetName())
				}
			}
			if err != nil || ask.times > 0 || recorded > 0 || r.Transaction != "" && row.h.Caller == "" {
				t.Errorf("asked %d times, recorded %d times, txn %q, %v", ask.times, recorded, r.Transaction, err)
			}
		})
	}
}

// Identity providers are asked if that is wanted. Of tokens that only they can
// read, nothing can be said otherwise.
func TestExplainIntrospects(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.provider.Introspection, f.provider.Opaque = &chancerypb.Introspection{Endpoint: "https://idp.test/introspect"}, true
	ask := &asked{}
	s, err := extauthz.New(extauthz.Config{Logger: slog.New(slog.DiscardHandler), Signer: func() *passport.Signer { return f.signer }, Introspector: ask})
	if err != nil {
		t.Fatal(err)
	}
	s.SetState(f.gatewayState(t))
	h := extauthz.Hypothesis{Method: "GET", Target: "/orders/1", Headers: []extauthz.HypotheticalHeader{{Name: "authorization", Value: "Bearer opaque"}}}
	if r := s.Explain(t.Context(), &h); r.Reason != "introspection_unavailable" || ask.times > 0 || !strings.Contains(r.Cause.Error(), "not asked") {
		t.Errorf("decided %s, %v, asked %d times", r.Reason, r.Cause, ask.times)
	}
	h.Introspect = true
	if r := s.Explain(t.Context(), &h); r.Reason != "allowed" || ask.times != 1 {
		t.Errorf("decided %s, %v, asked %d times", r.Reason, r.Cause, ask.times)
	}
}

// hypothesis is c as a request that has not happened.
func (c call) hypothesis() *extauthz.Hypothesis {
	h := &extauthz.Hypothesis{Method: c.method, Target: c.path, IP: c.ip, Caller: c.caller}
	for _, header := range c.headers {
		h.Headers = append(h.Headers, extauthz.HypotheticalHeader{Name: header[0], Value: header[1]})
	}
	return h
}

// A question about tomorrow must not let in today.
func TestExplainRemembersNoToken(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.server(t, f.gatewayState(t))
	tomorrow := time.Now().Add(24 * time.Hour)
	token := f.token(t, map[string]any{"nbf": tomorrow.Add(-time.Hour).Unix(), "exp": tomorrow.Add(time.Hour).Unix()})
	s.Explain(t.Context(), &extauthz.Hypothesis{
		Method: "GET", Target: "/orders/1", Time: tomorrow,
		Headers: []extauthz.HypotheticalHeader{{Name: "authorization", Value: "Bearer " + token}},
	})
	if _, got := check(t, s, f.atGateway(t).authorization("Bearer "+token).request()); got.reason != "token_not_yet_valid" {
		t.Errorf("today: %+v", got)
	}
}
