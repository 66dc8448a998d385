package envoy_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/internal/envoytest"
	"github.com/chancery-mesh/chancery/mesh"
)

// A permissive service takes connections in the clear from listed addresses, on
// routes that say so, and mutual TLS from everywhere.
func TestPermissive(t *testing.T) {
	t.Parallel()
	authority, application := envoytest.NewAuthority(t), envoytest.NewUpstream(t, nil)
	e := startSidecar(t, permissive(), authority, application, nil)
	address := e.Address("inbound")
	listed, other := by(t, "127.0.0.2", nil), by(t, "127.0.0.3", nil)
	tests := []struct {
		name, url string
		client    *http.Client
		status    int
	}{
		{"listed", "http://" + address + "/open", listed, 200},
		{"listed, on a route that is not open", "http://" + address + "/orders", listed, 403},
		{"listed, on no route", "http://" + address + "/admin", listed, 404},
		{"not listed", "http://" + address + "/open", other, 0},
		{"not listed, over TLS", "https://" + address + "/open", by(t, "127.0.0.3", authority.Client(gatewayID)), 200},
		{"listed, over TLS", "https://" + address + "/orders", by(t, "127.0.0.2", authority.Client(gatewayID)), 200},
		{"no caller, over TLS", "https://" + address + "/open", by(t, "127.0.0.2", authority.Client(inventoryID)), 403},
	}
	for _, tt := range tests {
		before := application.Count("/")
		if got := try(t, tt.client, tt.url); got != tt.status {
			t.Errorf("%s: status %d, want %d", tt.name, got, tt.status)
		}
		if came := application.Count("/") - before; came != 0 && tt.status != 200 {
			t.Errorf("%s: %d requests reached the application", tt.name, came)
		}
	}
}

// Who calls in the clear is nobody, and what it says about itself is not
// believed.
func TestPlaintextCallersAreNobody(t *testing.T) {
	t.Parallel()
	authority, application := envoytest.NewAuthority(t), envoytest.NewUpstream(t, nil)
	e := startSidecar(t, permissive(), authority, application, nil)
	spoofed := []string{
		"X-Forwarded-Client-Cert", "URI=" + gatewayID, "X-Forwarded-For", "10.1.2.3", "Forwarded", "for=10.1.2.3",
		"X-Original-Url", "/admin", "X-Tenant-Id", "acme",
	}
	if got := try(t, by(t, "127.0.0.2", nil), "http://"+e.Address("inbound")+"/open", spoofed...); got != 200 {
		t.Fatalf("status %d", got)
	}
	source := e.agent.Checks()[0].GetAttributes().GetSource()
	if source.GetPrincipal() != "" || source.GetCertificate() != "" {
		t.Errorf("ext_authz was told %v", source)
	}
	if ip := source.GetAddress().GetSocketAddress().GetAddress(); ip != "127.0.0.2" {
		t.Errorf("ext_authz was told address %q", ip)
	}
	received := application.Received()[0].Header
	for i := 0; i < len(spoofed); i += 2 {
		if strings.Contains(received.Get(spoofed[i]), spoofed[i+1]) {
			t.Errorf("%s reached the application", spoofed[i])
		}
	}
}

// offloaded is chain with orders reached in the clear, by 127.0.0.2 alone.
func offloaded() *mesh.Mesh {
	m := permissive()
	orders := m.Service("orders")
	orders.MTLS = mesh.MTLSOff
	for i := range orders.Routes {
		orders.Routes[i].Plaintext = true
	}
	return m
}

func TestOffloaded(t *testing.T) {
	t.Parallel()
	authority, application := envoytest.NewAuthority(t), envoytest.NewUpstream(t, nil)
	e := startSidecar(t, offloaded(), authority, application, nil)
	address := e.Address("inbound")
	if got := try(t, by(t, "127.0.0.2", nil), "http://"+address+"/orders", "X-Forwarded-For", "10.1.2.3"); got != 200 {
		t.Errorf("listed: status %d", got)
	}
	// It comes from a workload.
	if got := application.Received()[0].Header.Get("X-Forwarded-For"); got != "10.1.2.3" {
		t.Errorf("X-Forwarded-For is %q", got)
	}
	if got := try(t, by(t, "127.0.0.3", nil), "http://"+address+"/orders"); got != 0 {
		t.Errorf("not listed: status %d", got)
	}
	if got := try(t, by(t, "127.0.0.2", authority.Client(gatewayID)), "https://"+address+"/orders"); got != 0 {
		t.Errorf("over TLS: status %d", got)
	}
	if n := application.Count("/"); n != 1 {
		t.Errorf("%d requests reached the application", n)
	}
}

// A Passport goes over a connection in the clear where the documents say so, and
// nowhere else; see TestOutbound for the other ways.
func TestPassportInTheClear(t *testing.T) {
	t.Parallel()
	for name, passport := range map[string]string{"not": "", "said so": "passport"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := chain()
			inventory := m.Service("inventory")
			inventory.MTLS = mesh.MTLSOff
			inventory.Plaintext = &mesh.Plaintext{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Passport: passport != ""}
			inventory.Routes[0].Callers = []string{"orders", "public"}
			purge := route("purge", "/purge")
			purge.Callers = []string{"batch"}
			inventory.Routes = append(inventory.Routes, purge)
			m.Gateways[0].Routes[0].To = "inventory"
			upstream := envoytest.NewUpstream(t, nil)
			instances := map[string][]instance{"inventory": meshed(upstream.Address())}
			check := func(way string, status int) {
				t.Helper()
				all := upstream.Received()
				if status != 200 || len(all) == 0 {
					t.Fatalf("by the %s: status %d", way, status)
				}
				if got := all[len(all)-1].Header.Get("Txn-Token"); got != passport {
					t.Errorf("by the %s: Passport %q, want %q", way, got, passport)
				}
			}
			e := startSidecar(t, m, envoytest.NewAuthority(t), envoytest.NewUpstream(t, nil), instances)
			base := "http://" + e.Address("outbound")
			check("sidecar", get(t, base+"/stock/7", "Host", "inventory", "Txn-Token", "passport").status)
			if got := get(t, base+"/purge", "Host", "inventory"); got.status != http.StatusForbidden {
				t.Errorf("who is no caller: status %d", got.status)
			}
			check("gateway", get(t, "http://"+startGateway(t, m, instances).Address("gateway")+"/stock/7").status)
		})
	}
}
