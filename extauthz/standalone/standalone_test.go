package standalone_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/provider"
	"github.com/chancery-mesh/chancery/extauthz/standalone"
	"github.com/chancery-mesh/chancery/internal/idptest"
)

const documents = `
kind: Mesh
name: shop
trustDomain: shop.example
---
kind: IdentityProvider
name: fake
issuer: ISSUER
allowHTTP: true
allowPrivate: true
audiences: [shop-api]
claims: {groups: groups, tenant: tenant}
---
kind: Service
name: orders
---
kind: Gateway
name: public
listen: 127.0.0.1:8443
tls: {mode: off}
authenticate: {accessToken: fake}
routes:
  - match: {method: GET, path: "/orders/{id}"}
    to: orders
    allow: "'sales' in user.groups"
  - match: {path: "/orders/**"}
    to: orders
    allow: "'nobody' in user.groups"
`

const second = `
---
kind: Gateway
name: partners
listen: 127.0.0.1:8444
tls: {mode: off}
authenticate: {accessToken: fake}
`

// rig is a PDP in a directory of documents.
type rig struct {
	*testing.T
	dir    string
	idp    *idptest.Fake
	pdp    *standalone.PDP
	server *extauthz.Server
}

func start(t *testing.T, gateway, text string) *rig {
	t.Helper()
	r := prepare(t, gateway, text, slog.New(slog.DiscardHandler))
	r.run()
	return r
}

func prepare(t *testing.T, gateway, text string, log *slog.Logger) *rig {
	t.Helper()
	r := &rig{T: t, dir: t.TempDir(), idp: idptest.NewFake(t)}
	r.write(text)
	var err error
	if r.server, err = extauthz.New(extauthz.Config{Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	r.pdp, err = standalone.New(standalone.Config{
		Documents: r.dir, Gateway: gateway, Server: r.server, Logger: log, Providers: provider.Config{Dir: t.TempDir()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) run() {
	done := make(chan error)
	go func() { done <- r.pdp.Run(r.Context()) }()
	r.Cleanup(func() {
		if err := <-done; err != nil {
			r.Error(err)
		}
	})
}

func (r *rig) write(text string) {
	r.Helper()
	text = strings.Replace(text, "ISSUER", r.idp.URL, 1)
	if err := os.WriteFile(filepath.Join(r.dir, "mesh.yaml"), []byte(text), 0o600); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) until(what string, ok func() bool) {
	r.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			r.Fatalf("not in time: %s; %v", what, r.pdp.Fault())
		}
	}
}

// status is what a plain Envoy gets, which names neither policy nor route.
func (r *rig) status(method, path, token string) int {
	r.Helper()
	response, err := r.server.Check(r.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: method, Path: path, Headers: map[string]string{"authorization": "Bearer " + token},
		}},
	}})
	if err != nil {
		r.Fatal(err)
	}
	if response.GetOkResponse() != nil {
		return 200
	}
	return int(response.GetDeniedResponse().GetStatus().GetCode())
}

func TestDecidesByDocuments(t *testing.T) {
	t.Parallel()
	r := start(t, "", documents)
	token := r.idp.Login(t, idptest.User, idptest.JWT).Access
	r.until("a token is accepted", func() bool { return r.status("GET", "/orders/7", token) == 200 })
	for _, row := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/orders/7?x=y", 200},
		{"POST", "/orders/7", 403}, // the second route
		{"GET", "/orders/7/items", 403},
		{"GET", "/other", 403},
		{"GET", "//orders/7", 400},
	} {
		if got := r.status(row.method, row.path, token); got != row.status {
			t.Errorf("%s %s: %d, want %d", row.method, row.path, got, row.status)
		}
	}
	if got := r.status("GET", "/orders/7", token+"x"); got != 401 {
		t.Errorf("a bad token: %d", got)
	}

	r.write(strings.Replace(documents, "'sales' in", "'support' in", 1))
	r.until("the change counts", func() bool { return r.status("GET", "/orders/7", token) == 403 })
	r.write(strings.Replace(documents, "'sales' in", "'sales' inn", 1))
	r.until("the fault is told", func() bool { return r.pdp.Fault() != nil })
	if got := r.status("GET", "/orders/7", token); got != 403 {
		t.Errorf("after a fault: %d", got)
	}
	r.write(documents)
	r.until("it is mended", func() bool { return r.status("GET", "/orders/7", token) == 200 && r.pdp.Fault() == nil })
}

func TestChoosesTheGateway(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ gateway, text, fault string }{
		"the only one":     {"", documents, ""},
		"by name":          {"public", documents + second, ""},
		"none":             {"", documents[:strings.Index(documents, "---\nkind: Gateway")], "no Gateway document"},
		"which of several": {"", documents + second, "choose one of partners, public"},
		"unknown":          {"privat", documents + second, `no Gateway called "privat": there are partners, public`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, row.gateway, row.text)
			if row.fault == "" {
				r.until("ready", r.pdp.Ready)
				return
			}
			r.until("it is told", func() bool { return r.pdp.Fault() != nil && strings.Contains(r.pdp.Fault().Error(), row.fault) })
			if r.pdp.Ready() || r.status("GET", "/orders/7", "x") != 503 {
				t.Error("it decides")
			}
		})
	}
}

// called has told of each message in the log.
type called struct {
	slog.Handler
	at func(message string)
}

func (h called) Enabled(context.Context, slog.Level) bool { return true }

func (h called) Handle(_ context.Context, r slog.Record) error {
	h.at(r.Message)
	return nil
}

// Neither revision lets a token in: the first for its rule, the second for its
// audience.
func TestNoDecisionIsOfTwoRevisions(t *testing.T) {
	t.Parallel()
	first := strings.Replace(documents, "'sales' in user.groups", "'nobody' in user.groups", 1)
	second := strings.Replace(strings.Replace(documents, "audiences: [shop-api]", "audiences: [other-api]", 1),
		"    allow: \"'sales' in user.groups\"\n", "", 1)
	statuses := make(chan int, 100)
	var r *rig
	var token string
	log := slog.New(called{slog.DiscardHandler, func(message string) {
		if message == "documents decided by" { // what is fetched comes after
			statuses <- r.status("GET", "/orders/7", token)
		}
	}})
	r = prepare(t, "", first, log)
	token = r.idp.Login(t, idptest.User, idptest.JWT).Access
	r.run()
	<-statuses
	r.until("there are keys", func() bool { return r.status("GET", "/orders/7", token) == 403 })
	r.write(second)
	if got := <-statuses; got != 401 {
		t.Errorf("as soon as the second is decided by: %d", got)
	}
}

func TestRequiredLogThatIsNotThere(t *testing.T) {
	t.Parallel()
	r := start(t, "", strings.Replace(documents, "trustDomain: shop.example", "trustDomain: shop.example\ndecisions: {log: required}", 1))
	token := r.idp.Login(t, idptest.User, idptest.JWT).Access
	r.until("it decides", r.pdp.Ready)
	r.until("there are keys", func() bool { return r.status("GET", "/orders/7", "x") == 503 })
	if got := r.status("GET", "/orders/7", token); got != 503 {
		t.Errorf("a token: %d, and nowhere is a record", got)
	}
}
