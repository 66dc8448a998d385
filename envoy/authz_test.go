package envoy_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/extauthz/revocation"
	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/envoytest"
	"github.com/chancery-mesh/chancery/mesh"
	"github.com/chancery-mesh/chancery/passport"
)

// decided is a gateway's Envoy that asks the real decision point.
type decided struct {
	*rig
	base     string
	upstream *envoytest.Upstream
	key      string
	// withAccounts makes decisions by what documents say of accounts, and
	// withoutAccounts as if that had not come.
	withAccounts, withoutAccounts *extauthz.State
	server                        *extauthz.Server
}

const decidedDocuments = `
kind: Mesh
name: shop
trustDomain: shop.example
---
kind: Client
name: till
owner: Till team
plan: gold
tenant: acme
---
kind: APIKey
name: 0aZ9bY8cX7
client: till
owner: till-7
hash: HASH
---
kind: Gateway
name: public
profile: private
listen: 127.0.0.1:8443
authenticate: {apiKey: true}
routes:
  - match: {path: /small}
    to: orders
    body: 64B
    allow: request.body.amount < 100
  - match: {path: /large}
    to: orders
    body: 1MiB
    allow: request.body.amount < 100
  - match: {path: /unread}
    to: orders
  - match: {path: /denied}
    to: orders
    allow: tenant == 'globex'
---
kind: Service
name: orders
mtls: "off"
callers: [public]
routes:
  - {match: {path: /**}, allow: "true"}
`

func startDecided(t *testing.T) *decided {
	t.Helper()
	_, key := credential.GenerateAPIKey()
	key = key[:4] + "0aZ9bY8cX7" + key[14:]
	text := strings.Replace(decidedDocuments, "HASH", credential.HashAPIKey(key), 1)
	m, err := mesh.Parse("shop.yaml", []byte(text)).Compile(extauthz.DocumentOptions())
	if err != nil {
		t.Fatal(err)
	}
	d := &decided{upstream: envoytest.NewUpstream(t, nil), key: key}
	rules, err := extauthz.Compile(translate.Gateway(m, m.Gateway("public")))
	if err != nil {
		t.Fatal(err)
	}
	for state, accounts := range map[**extauthz.State]map[string]*chancerypb.Accounts{
		&d.withAccounts: translate.Accounts(m), &d.withoutAccounts: nil,
	} {
		if *state, err = rules.With(extauthz.Keys{Accounts: slices.Collect(maps.Values(accounts)), Revocations: &revocation.Index{}}); err != nil {
			t.Fatal(err)
		}
	}
	signer, err := passport.NewSigner(newSigningKey(t))
	if err != nil {
		t.Fatal(err)
	}
	d.server, err = extauthz.New(extauthz.Config{Logger: slog.New(slog.DiscardHandler), Signer: func() *passport.Signer { return signer }})
	if err != nil {
		t.Fatal(err)
	}
	d.server.SetState(d.withAccounts)
	d.rig = startGateway(t, m, map[string][]instance{"orders": plain(d.upstream)})
	d.agent.Authorize(func(r *authv3.CheckRequest) *authv3.CheckResponse {
		response, err := d.server.Check(context.Background(), r)
		if err != nil {
			t.Error(err)
		}
		return response
	})
	d.base = "http://" + d.Address("gateway")
	return d
}

// What the agent answers reaches clients as it is, and the access log says which
// decision it was.
func TestRefusalsReachClients(t *testing.T) {
	t.Parallel()
	d := startDecided(t)
	for name, row := range map[string]struct {
		path    string
		headers []string
		state   *extauthz.State
		status  int
		code    string
		reason  string
		// challenge of a 401.
		challenge string
		log       map[string]any
	}{
		"no credential": {"/unread", nil, d.withAccounts, 401, "unauthenticated", "credential_missing", `ApiKey realm="public"`, map[string]any{
			"user": "-", "tenant": "-", "client": "-", "plan": "-",
		}},
		"a bad one": {"/unread", []string{"X-Api-Key", "x"}, d.withAccounts, 401, "unauthenticated", "api_key_invalid", `ApiKey realm="public"`, map[string]any{"user": "-"}},
		"denied": {"/denied", []string{"X-Api-Key", d.key}, d.withAccounts, 403, "forbidden", "policy_denied", "", map[string]any{
			"user": "till-7", "tenant": "acme", "client": "till", "plan": "gold",
		}},
		"nobody could decide": {"/unread", []string{"X-Api-Key", d.key}, d.withoutAccounts, 503, "unavailable", "no_accounts", "", map[string]any{"plan": "-"}},
	} {
		d.server.SetState(row.state)
		before := len(d.upstream.Received())
		got := get(t, d.base+row.path, row.headers...)
		var problem struct {
			Type, Title, Code, Decision string
			Status                      int
		}
		if err := json.Unmarshal([]byte(got.body), &problem); err != nil {
			t.Errorf("%s: body %q: %v", name, got.body, err)
		}
		if got.status != row.status || problem.Status != row.status || problem.Code != row.code || len(problem.Decision) != 32 {
			t.Errorf("%s: %d %q", name, got.status, got.body)
		}
		if kind, caching := got.header.Get("Content-Type"), got.header.Get("Cache-Control"); kind != "application/problem+json" || caching != "no-store" {
			t.Errorf("%s: %s, %s", name, kind, caching)
		}
		if c := got.header.Values("Www-Authenticate"); strings.Join(c, "|") != row.challenge {
			t.Errorf("%s: challenge %q", name, c)
		}
		entry := d.AccessLog(got.header.Get("X-Request-Id"))
		row.log["decision"], row.log["reason"], row.log["status"] = problem.Decision, row.reason, float64(row.status)
		for field, want := range row.log {
			if entry[field] != want {
				t.Errorf("%s: access log: %s is %v, want %v", name, field, entry[field], want)
			}
		}
		if len(d.upstream.Received()) != before {
			t.Errorf("%s: reached the upstream", name)
		}
	}
	// gRPC clients are told in gRPC's way (attack row F04).
	d.server.SetState(d.withAccounts)
	for path, want := range map[string]string{"/unread": "16", "/denied": "7"} {
		got := sendBody(t, overHTTP2, d.base+path, strings.NewReader(""), "Content-Type", "application/grpc", "Te", "trailers", "X-Api-Key", map[string]string{"/unread": "x", "/denied": d.key}[path])
		if got.status != 200 || got.header.Get("Grpc-Status") != want {
			t.Errorf("gRPC: %d, %v", got.status, got.header)
		}
	}
	// Without an agent there is no reason, and Envoy's own words stay inside.
	d.agent.Stop()
	if got := get(t, d.base+"/unread", "X-Api-Key", d.key); got.status != 503 || got.body != "service unavailable\n" {
		t.Errorf("without an agent: %d %q", got.status, got.body)
	}
}

// Rules see whole bodies, however they are sent; larger ones are refused, whoever
// is asked (attack rows F05 and F07).
func TestBodiesAreShownToRules(t *testing.T) {
	t.Parallel()
	d := startDecided(t)
	const small, large = `{"amount": 99}`, `{"amount": 100}`
	padded := func(n int) string {
		return `{"amount": 99, "x": "` + strings.Repeat("a", n-len(`{"amount": 99, "x": ""}`)) + `"}`
	}
	for version, client := range map[string]*http.Client{"HTTP/1.1": client, "HTTP/2": overHTTP2} {
		for name, row := range map[string]struct {
			path, body string
			headers    []string
			status     int
			asked      bool
		}{
			"within":               {"/small", small, nil, 200, true},
			"denied":               {"/small", large, nil, 403, true},
			"as large as it may":   {"/small", padded(64), nil, 200, true},
			"larger":               {"/small", padded(65), nil, 413, false},
			"much larger":          {"/small", padded(4 << 20), nil, 413, false},
			"largest":              {"/large", padded(1 << 20), nil, 200, true},
			"larger than that":     {"/large", padded(1<<20 + 1), nil, 413, false},
			"not read":             {"/unread", padded(4 << 20), nil, 200, true},
			"not read, small":      {"/unread", large, nil, 200, true},
			"none":                 {"/small", "", nil, 403, true},
			"another type":         {"/small", small, []string{"Content-Type", "text/plain"}, 403, true},
			"client says it whole": {"/small", large, []string{"X-Envoy-Auth-Partial-Body", "false"}, 403, true},
			"without a key":        {"/small", small, []string{"X-Api-Key", "x"}, 401, true},
		} {
			for _, chunked := range []bool{false, true} {
				headers := row.headers
				if !slices.Contains(headers, "Content-Type") {
					headers = append(headers, "Content-Type", "application/json")
				}
				if !slices.Contains(headers, "X-Api-Key") {
					headers = append(headers, "X-Api-Key", d.key)
				}
				var body io.Reader = strings.NewReader(row.body)
				if chunked {
					body = io.MultiReader(body) // whose length nobody knows
				}
				checks, received := len(d.agent.Checks()), len(d.upstream.Received())
				got := sendBody(t, client, d.base+row.path, body, headers...)
				if got.status != row.status {
					t.Errorf("%s, %s, chunked %v: %d %s", version, name, chunked, got.status, got.body)
				}
				asked := d.agent.Checks()[checks:]
				if reached := len(d.upstream.Received()) > received; reached != (row.status == 200) {
					t.Errorf("%s, %s, chunked %v: reached %v", version, name, chunked, reached)
				}
				switch {
				case row.asked == (len(asked) > 0):
				case row.asked:
					t.Errorf("%s, %s, chunked %v: nobody was asked", version, name, chunked)
				default:
					// Envoy asks even so where all of a body comes at once. It has
					// answered already, and the decision is the same.
					response, err := d.server.Check(t.Context(), asked[0])
					if status := int(response.GetDeniedResponse().GetStatus().GetCode()); status != row.status {
						t.Errorf("%s, %s, chunked %v: decided %d, %v", version, name, chunked, status, err)
					}
				}
			}
		}
	}
	for _, check := range d.agent.Checks() {
		http := check.GetAttributes().GetRequest().GetHttp()
		if http.GetPath() == "/unread" && len(http.GetRawBody())+len(http.GetBody()) > 0 {
			t.Error("a body that no rule reads was shown")
		}
	}
}
