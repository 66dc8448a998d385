package envoy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/envoytest"
	"github.com/chancery-mesh/chancery/mesh"
)

// clientTLSRig is a gateway with two server certificates.
type clientTLSRig struct {
	*rig
	servers, partners *envoytest.Authority
	upstream          *envoytest.Upstream
}

func startClientTLS(t *testing.T, config *mesh.GatewayTLS) *clientTLSRig {
	t.Helper()
	m := shop(route("all", "/**"))
	m.Gateways[0].TLS = config
	config.Certificates = []string{"shop", "partners"}
	r := &clientTLSRig{
		servers: envoytest.NewAuthority(t), partners: envoytest.NewAuthority(t), upstream: envoytest.NewUpstream(t, nil),
	}
	r.rig = start(t, envoy.Gateway(m, m.Gateway("public")), envoy.Local{Inbound: anyPort}, m,
		map[string][]instance{"orders": plain(r.upstream)}, func(agent *envoytest.Agent) {
			agent.Secret(keyPair(t, envoy.CertificateSecret("shop"), r.server("shop.example")))
			agent.Secret(keyPair(t, envoy.CertificateSecret("partners"), r.server("partners.example")))
			agent.Secret(envoy.ClientTrust(envoy.TrustSecret("partners"), r.partners.Roots()))
		})
	return r
}

func (r *clientTLSRig) server(name string) tls.Certificate {
	return r.servers.Issue(func(c *x509.Certificate) { c.DNSNames = []string{name} })
}

// try calls the gateway; config may lack what it takes to be refused.
func (r *clientTLSRig) try(t *testing.T, config *tls.Config) (status int, state tls.ConnectionState) {
	t.Helper()
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(s tls.ConnectionState) error {
		state = s
		return nil
	}
	if config.NextProtos == nil {
		config.NextProtos = []string{"h2", "http/1.1"}
	}
	client := by(t, "127.0.0.1", config)
	return try(t, client, "https://"+r.Address("gateway")+"/orders"), state
}

func TestClientTLS(t *testing.T) {
	t.Parallel()
	e := startClientTLS(t, &mesh.GatewayTLS{MinVersion: "1.2"})
	tests := []struct {
		name     string
		config   *tls.Config
		version  uint16
		protocol string
		host     string
	}{
		{"newest", &tls.Config{}, tls.VersionTLS13, "h2", "shop.example"},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, tls.VersionTLS12, "h2", "shop.example"},
		{"HTTP/1.1", &tls.Config{NextProtos: []string{"http/1.1"}}, tls.VersionTLS13, "http/1.1", "shop.example"},
		{"unknown protocol", &tls.Config{NextProtos: []string{"spdy/3"}}, tls.VersionTLS13, "", "shop.example"},
		{"first name", &tls.Config{ServerName: "shop.example"}, tls.VersionTLS13, "h2", "shop.example"},
		{"second name", &tls.Config{ServerName: "partners.example"}, tls.VersionTLS13, "h2", "partners.example"},
		{"upper case", &tls.Config{ServerName: "PARTNERS.example"}, tls.VersionTLS13, "h2", "shop.example"}, // Envoy compares bytes
		{"other name", &tls.Config{ServerName: "evil.example"}, tls.VersionTLS13, "h2", "shop.example"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, state := e.try(t, tt.config)
			if status != http.StatusOK || state.Version != tt.version || state.NegotiatedProtocol != tt.protocol {
				t.Errorf("status %d, %s, protocol %q", status, tls.VersionName(state.Version), state.NegotiatedProtocol)
			}
			if got := state.PeerCertificates[0].DNSNames[0]; got != tt.host {
				t.Errorf("certificate of %s, want %s", got, tt.host)
			}
		})
	}
	for name, config := range map[string]*tls.Config{
		"TLS 1.0": {MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
		"TLS 1.1": {MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
		"CBC":     {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}},
	} {
		if status, _ := e.try(t, config); status != 0 {
			t.Errorf("%s: status %d", name, status)
		}
	}
	if status := try(t, client, "http://"+e.Address("gateway")+"/orders"); status == http.StatusOK {
		t.Error("served in the clear")
	}
}

func TestClientTLSNewestAlone(t *testing.T) {
	t.Parallel()
	e := startClientTLS(t, &mesh.GatewayTLS{MinVersion: "1.3"})
	if status, _ := e.try(t, &tls.Config{MaxVersion: tls.VersionTLS12}); status != 0 {
		t.Errorf("TLS 1.2: status %d", status)
	}
	if status, _ := e.try(t, &tls.Config{}); status != http.StatusOK {
		t.Errorf("TLS 1.3: status %d", status)
	}
}

// A server certificate is swapped under open connections.
func TestClientTLSSwap(t *testing.T) {
	t.Parallel()
	e := startClientTLS(t, &mesh.GatewayTLS{MinVersion: "1.2"})
	url := "https://" + e.Address("gateway") + "/orders"
	dials := 0
	open := by(t, "127.0.0.1", &tls.Config{InsecureSkipVerify: true})
	transport := open.Transport.(*http.Transport)
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dials++
		return dial(ctx, network, address)
	}
	get := func() {
		t.Helper()
		if got := sendBy(t, open, http.MethodGet, url); got.status != http.StatusOK {
			t.Fatalf("status %d", got.status)
		}
	}
	get()
	e.agent.Secret(keyPair(t, envoy.CertificateSecret("shop"), e.server("new.example")))
	e.agent.Push()
	await(t, "new connections see the new certificate", func() bool {
		get()
		_, state := e.try(t, &tls.Config{})
		return state.PeerCertificates[0].DNSNames[0] == "new.example"
	})
	get()
	if dials != 1 {
		t.Errorf("the open connection was dropped: %d connections", dials)
	}
}

// Rows S11, S13: whatever the client asks for, the same certificate is demanded of
// it, with exactly one of the names.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	e := startClientTLS(t, &mesh.GatewayTLS{MinVersion: "1.2", Clients: &mesh.ClientCertificates{
		Trust: "partners", Required: true,
		Names: []string{"spiffe://partner.example/billing", "billing.partner.example", "billing@partner.example", "urn:partner:billing"},
	}})
	issue := func(change func(*x509.Certificate)) *tls.Certificate {
		certificate := e.partners.Issue(change)
		return &certificate
	}
	dns := func(name string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.DNSNames = []string{name} }
	}
	foreign := envoytest.NewAuthority(t).Issue(dns("billing.partner.example"))
	certificates := map[string]struct {
		certificate *tls.Certificate
		good        bool
	}{
		"URI":            {issue(named("spiffe://partner.example/billing")), true},
		"URN":            {issue(named("urn:partner:billing")), true},
		"DNS name":       {issue(dns("billing.partner.example")), true},
		"email address":  {issue(func(c *x509.Certificate) { c.EmailAddresses = []string{"billing@partner.example"} }), true},
		"none":           {&tls.Certificate{}, false},
		"wildcard":       {issue(dns("*.partner.example")), false},
		"longer name":    {issue(dns("billing.partner.example.evil.example")), false},
		"subdomain":      {issue(dns("a.billing.partner.example")), false},
		"any character":  {issue(dns("billingxpartner.example")), false},
		"of other type":  {issue(func(c *x509.Certificate) { c.URIs = []*url.URL{envoytest.URI("billing.partner.example")} }), false},
		"longer URI":     {issue(named("spiffe://partner.example/billing2")), false},
		"common name":    {issue(func(c *x509.Certificate) { c.Subject.CommonName = "billing.partner.example" }), false},
		"other issuer":   {&foreign, false},
		"issuer of ours": {new(e.servers.Issue(dns("billing.partner.example"))), false},
	}
	for name, c := range certificates {
		for hello, change := range hellos {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				config := &tls.Config{MinVersion: version, MaxVersion: version}
				config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.certificate, nil }
				change(config)
				want := 0
				if c.good {
					want = http.StatusOK
				}
				if status, _ := e.try(t, config); status != want {
					t.Errorf("%s, %s, %s: status %d, want %d", name, hello, tls.VersionName(version), status, want)
				}
			}
		}
	}
	for _, check := range e.agent.Checks() {
		if certificate := check.GetAttributes().GetSource().GetCertificate(); !strings.Contains(certificate, "CERTIFICATE") {
			t.Fatalf("ext_authz was told certificate %q", certificate)
		}
	}
}

// A certificate that is not required is verified all the same.
func TestClientCertificatesNotRequired(t *testing.T) {
	t.Parallel()
	e := startClientTLS(t, &mesh.GatewayTLS{MinVersion: "1.2", Clients: &mesh.ClientCertificates{Trust: "partners"}})
	for name, tt := range map[string]struct {
		issuer *envoytest.Authority
		status int
	}{"none": {nil, 200}, "good": {e.partners, 200}, "bad": {e.servers, 0}} {
		config := &tls.Config{}
		if tt.issuer != nil {
			config = tt.issuer.ClientWith(tt.issuer.Issue(func(*x509.Certificate) {}))
		}
		if status, _ := e.try(t, config); status != tt.status {
			t.Errorf("%s: status %d, want %d", name, status, tt.status)
		}
	}
}
