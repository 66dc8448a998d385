package envoy_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"
	"time"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/envoytest"
)

// Whoever is called must be exactly who was meant, by a certificate that is good.
func TestOutboundRefusesStrangers(t *testing.T) {
	t.Parallel()
	authority := envoytest.NewAuthority(t)
	ours := func(change func(*x509.Certificate)) tls.Certificate {
		return authority.Issue(func(c *x509.Certificate) {
			named(inventoryID)(c)
			change(c)
		})
	}
	strangers := map[string]tls.Certificate{
		"longer name":  ours(named(inventoryID + "2")),
		"other role":   ours(named("spiffe://shop.example/gateway/inventory")),
		"other domain": ours(named("spiffe://shop.example.evil.example/service/inventory")),
		"below":        ours(named(inventoryID + "/a")),
		"host name":    ours(func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"inventory"} }),
		"expired": ours(func(c *x509.Certificate) {
			c.NotAfter = time.Now().Add(-time.Second)
			c.NotBefore = c.NotAfter.Add(-time.Hour)
		}),
		"a client's":     ours(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
		"other issuer":   envoytest.NewAuthority(t).Certificate(inventoryID),
		"without a list": authority.Sibling().Certificate(inventoryID),
	}
	for name, certificate := range strangers {
		t.Run(name, func(t *testing.T) {
			config := authority.Server(inventoryID)
			config.Certificates = []tls.Certificate{certificate}
			stranger := envoytest.NewUpstream(t, config)
			instances := map[string][]instance{"inventory": meshed(stranger.Address())}
			e := startSidecar(t, chain(), authority, envoytest.NewUpstream(t, nil), instances)
			got := get(t, "http://"+e.Address("outbound")+"/stock/7", "Host", "inventory", "Txn-Token", "passport")
			if got.status != http.StatusServiceUnavailable || stranger.Count("/") != 0 {
				t.Errorf("status %d, %d requests", got.status, stranger.Count("/"))
			}
		})
	}
}

// The certificate of who is called is revoked under an open connection: it ends
// with the generation, and there is no new one.
func TestRevokedUpstream(t *testing.T) {
	t.Parallel()
	authority := envoytest.NewAuthority(t)
	config := authority.Server(inventoryID)
	stolen := authority.Certificate(inventoryID)
	config.Certificates = []tls.Certificate{stolen}
	upstream := envoytest.NewUpstream(t, config)
	m := chain()
	e := startSidecar(t, m, authority, envoytest.NewUpstream(t, nil), map[string][]instance{"inventory": meshed(upstream.Address())})
	status := func() int { return get(t, "http://"+e.Address("outbound")+"/stock/7", "Host", "inventory").status }
	if got := status(); got != http.StatusOK {
		t.Fatalf("status %d", got)
	}
	e.agent.Secret(trustBundle(t, authority.Roots(), authority.CRL(stolen)))
	local := envoy.Local{Generations: map[string]string{"inventory": "2"}}
	for _, r := range envoy.Sidecar(m, m.Service("orders")) {
		if r.Name == "inventory" {
			e.agent.Set(r.TypeURL, r.Name, envoy.Localize(r.Message, local))
		}
	}
	e.agent.Push()
	await(t, "the revoked instance is left alone", func() bool { return status() == http.StatusServiceUnavailable })
	fresh := authority.Server(inventoryID)
	e.agent.Set(resourcev3.EndpointType, "inventory",
		envoy.Endpoints("inventory", true, meshed(envoytest.NewUpstream(t, fresh).Address())))
	e.agent.Push()
	await(t, "another instance is used", func() bool { return status() == http.StatusOK })
}
