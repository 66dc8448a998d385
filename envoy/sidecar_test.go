package envoy_test

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/envoytest"
	"github.com/chancery-mesh/chancery/mesh"
)

const (
	ordersID    = "spiffe://" + trustDomain + "/service/orders"
	inventoryID = "spiffe://" + trustDomain + "/service/inventory"
	gatewayID   = "spiffe://" + trustDomain + "/gateway/public"
)

// chain is a mesh where orders calls inventory, which has a sidecar, and
// legacy, which has none.
func chain() *mesh.Mesh {
	m := shop(route("list", "/orders"))
	m.Services[0].MTLS = mesh.MTLSStrict
	m.Services[0].Uses = []string{"legacy", "inventory"}
	stock := route("stock", "/stock/{item}")
	read, purge := route("read", "/read"), route("purge", "/purge")
	stock.Callers, read.Callers, purge.Callers = []string{"batch"}, []string{"orders"}, []string{"batch"}
	stock.Timeout, read.Timeout, purge.Timeout = time.Second, time.Second, time.Second
	m.Services = []*mesh.Service{
		{Name: "inventory", MTLS: mesh.MTLSStrict, Routes: []mesh.Route{stock}},
		{Name: "legacy", MTLS: mesh.MTLSOff, Routes: []mesh.Route{read, purge}},
		m.Services[0],
	}
	return m
}

// startSidecar starts the sidecar of orders, in front of that application.
func startSidecar(t *testing.T, m *mesh.Mesh, authority *envoytest.Authority, application *envoytest.Upstream, instances map[string][]instance) *rig {
	t.Helper()
	local := envoy.Local{Inbound: anyPort, Outbound: anyPort, Application: application.Address()}
	return start(t, envoy.Sidecar(m, m.Service("orders")), local, m, instances, workload(t, authority, ordersID))
}

// as returns a client with the certificate of a workload.
func as(config *tls.Config) *http.Client {
	return &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true},
	}
}

func TestInbound(t *testing.T) {
	t.Parallel()
	authority, application := envoytest.NewAuthority(t), envoytest.NewUpstream(t, nil)
	e := startSidecar(t, chain(), authority, application, nil)
	base := "https://" + e.Address("inbound")

	t.Run("names the caller", func(t *testing.T) {
		got := sendBy(t, as(authority.Client(gatewayID)), http.MethodGet, base+"/orders",
			"Txn-Token", "outer", "X-Request-Id", "11111111-2222-4333-8444-555555555555", "X-Forwarded-For", "10.1.2.3",
			"X-Forwarded-Client-Cert", "URI=spiffe://shop.example/service/admin",
			"X-Envoy-Original-Path", "/admin", "X-Envoy-Expected-Rq-Timeout-Ms", "1", "X-Tenant-Id", "acme")
		if got.status != http.StatusOK {
			t.Fatalf("status %d: %s", got.status, got.body)
		}
		attributes := e.agent.Checks()[0].GetAttributes()
		if p := attributes.GetSource().GetPrincipal(); p != gatewayID {
			t.Errorf("source.principal is %q", p)
		}
		want := map[string]string{"policy": "service/orders", "route": "list /orders"}
		if diff := cmp.Diff(want, attributes.GetContextExtensions()); diff != "" {
			t.Errorf("context extensions (-want +got):\n%s", diff)
		}
		passport := ""
		for _, h := range attributes.GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
			if h.GetKey() == envoy.HeaderPassport {
				passport += string(h.GetRawValue())
			}
		}
		if passport != "outer" {
			t.Errorf("ext_authz saw Passport %q", passport)
		}

		received := application.Received()[0].Header
		if xfcc := received.Get("X-Forwarded-Client-Cert"); xfcc == "" || !strings.HasSuffix(xfcc, "URI="+gatewayID) {
			t.Errorf("X-Forwarded-Client-Cert is %q", xfcc)
		}
		for name, want := range map[string]string{
			"X-Request-Id": "11111111-2222-4333-8444-555555555555", "X-Forwarded-For": "10.1.2.3", "X-Tenant-Id": "",
		} {
			if got := received.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		for name := range received {
			if strings.HasPrefix(name, "X-Envoy-") {
				t.Errorf("%s reached the application", name)
			}
		}
	})
	t.Run("knows no other path", func(t *testing.T) {
		checks := len(e.agent.Checks())
		for target, want := range map[string]int{"/admin": 404, "/orders//": 400, "/orders/%2e%2e": 400} {
			if got := sendBy(t, as(authority.Client(gatewayID)), http.MethodGet, base+target); got.status != want {
				t.Errorf("%s: status %d, want %d", target, got.status, want)
			}
		}
		if len(e.agent.Checks()) != checks || application.Count("/") != 1 {
			t.Error("a request went on")
		}
	})
	t.Run("refuses strangers", func(t *testing.T) {
		strangers := map[string]*tls.Config{
			"no certificate":     {InsecureSkipVerify: true},
			"other authority":    envoytest.NewAuthority(t).Client(gatewayID),
			"other trust domain": authority.Client("spiffe://evil.example/gateway/public"),
			"longer domain":      authority.Client("spiffe://shop.example.evil.example/gateway/public"),
		}
		for name, config := range strangers {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/orders", nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := as(config).Do(request)
			if err == nil {
				_ = response.Body.Close()
				t.Errorf("%s: status %d, want a refused handshake", name, response.StatusCode)
			}
		}
	})
}

func TestOutbound(t *testing.T) {
	t.Parallel()
	authority, application := envoytest.NewAuthority(t), envoytest.NewUpstream(t, nil)
	inventory := envoytest.NewUpstream(t, authority.Server(inventoryID))
	impostor := envoytest.NewUpstream(t, authority.Server("spiffe://shop.example/service/inventory2"))
	legacy := envoytest.NewUpstream(t, nil)
	headers := []string{
		"Txn-Token", "passport", "X-Request-Id", "11111111-2222-4333-8444-555555555555",
		"X-Envoy-Retry-On", "5xx", "X-Forwarded-Client-Cert", "URI=" + gatewayID,
	}
	instances := map[string][]instance{"inventory": meshed(inventory.Address()), "legacy": plain(legacy)}
	e := startSidecar(t, chain(), authority, application, instances)
	base := "http://" + e.Address("outbound")

	tests := []struct {
		name, host, target string
		status             int
		upstream           *envoytest.Upstream
		passport           string
	}{
		{"reaches what it uses", "inventory", "/stock/7", 200, inventory, "passport"},
		{"takes a port", "inventory:8080", "/stock/7", 200, inventory, "passport"},
		{"keeps to the routes", "inventory", "/admin", 404, nil, ""},
		{"refuses what is ambiguous", "inventory", "/stock/%2e%2e", 400, nil, ""},
		{"sends no Passport in the clear", "legacy", "/read", 200, legacy, ""},
		{"keeps to the callers where nobody else does", "legacy", "/purge", 403, nil, ""},
		{"refuses what it does not use", "payments", "/stock/7", 421, nil, ""},
		{"refuses a longer name", "inventory.evil.example", "/stock/7", 421, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := inventory.Count("/") + legacy.Count("/")
			got := get(t, base+tt.target, append([]string{"Host", tt.host}, headers...)...)
			if got.status != tt.status {
				t.Fatalf("status %d, want %d: %s", got.status, tt.status, got.body)
			}
			if tt.upstream == nil {
				if inventory.Count("/")+legacy.Count("/") != before {
					t.Error("the request went on")
				}
				return
			}
			all := tt.upstream.Received()
			received := all[len(all)-1]
			if p := received.Header.Get("Txn-Token"); p != tt.passport {
				t.Errorf("Passport %q, want %q", p, tt.passport)
			}
			if id := received.Header.Get("X-Request-Id"); id != "11111111-2222-4333-8444-555555555555" {
				t.Errorf("X-Request-Id %q", id)
			}
			if received.Header.Get("X-Forwarded-Client-Cert") != "" || received.Header.Get("X-Envoy-Retry-On") != "" {
				t.Errorf("received %v", received.Header)
			}
			if received.Host != tt.host || received.Target != tt.target {
				t.Errorf("received %s %s", received.Host, received.Target)
			}
		})
	}
	t.Run("refuses an impostor", func(t *testing.T) {
		e := startSidecar(t, chain(), authority, application, map[string][]instance{"inventory": meshed(impostor.Address())})
		got := get(t, "http://"+e.Address("outbound")+"/stock/7", "Host", "inventory")
		if got.status != http.StatusServiceUnavailable || impostor.Count("/") != 0 {
			t.Errorf("status %d, %d requests", got.status, impostor.Count("/"))
		}
	})
}
