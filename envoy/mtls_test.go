package envoy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/envoytest"
	"github.com/chancery-mesh/chancery/mesh"
)

// permissive is chain with orders taking calls in the clear from 127.0.0.2, on
// the route "open" alone.
func permissive() *mesh.Mesh {
	m := chain()
	orders := m.Service("orders")
	orders.MTLS = mesh.MTLSPermissive
	orders.Plaintext = &mesh.Plaintext{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}
	open := route("open", "/open")
	open.Callers, open.Plaintext, open.Timeout = []string{"public"}, true, time.Second
	orders.Routes = append(orders.Routes, open)
	return m
}

// by returns a client that calls from an address, over TLS if config is not nil.
func by(t *testing.T, from string, config *tls.Config) *http.Client {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	transport := &http.Transport{TLSClientConfig: config, DialContext: dialer.DialContext}
	transport.ForceAttemptHTTP2 = config == nil || config.NextProtos == nil || slices.Contains(config.NextProtos, "h2")
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Timeout: 10 * time.Second, Transport: transport}
}

// try sends a GET request; 0 is a connection that was refused.
func try(t *testing.T, client *http.Client, url string, headers ...string) (status int) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	return response.StatusCode
}

const gatewayName = "shop.example/gateway/public"

// strangers are certificates of nobody who may call: what their issuer made of
// the gateway's. What may sign certificates, or has no usages, Envoy takes: no
// authority of the mesh issues such, and ext_authz is told the certificate.
var strangers = map[string]func(*x509.Certificate){
	"S01 no name": func(c *x509.Certificate) { c.URIs = nil },
	"S01 names elsewhere": func(c *x509.Certificate) {
		c.URIs, c.DNSNames = nil, []string{gatewayID, gatewayName}
		c.Subject = pkix.Name{CommonName: gatewayID}
	},
	"S02 two names": func(c *x509.Certificate) {
		c.URIs = []*url.URL{envoytest.URI(gatewayID), envoytest.URI(ordersID)}
	},
	"S02 another name first": func(c *x509.Certificate) {
		c.URIs = []*url.URL{envoytest.URI("https://shop.example/"), envoytest.URI(gatewayID)}
	},
	"S02 another name after": func(c *x509.Certificate) {
		c.URIs = []*url.URL{envoytest.URI(gatewayID), envoytest.URI("urn:x")}
	},
	"S03 longer domain":    named("spiffe://shop.example.evil.example/gateway/public"),
	"S03 dot is any":       named("spiffe://shopxexample/gateway/public"),
	"S03 upper case":       named("spiffe://SHOP.example/gateway/public"),
	"S03 scheme":           named("SPIFFE://" + gatewayName),
	"S03 port":             named("spiffe://shop.example:80/gateway/public"),
	"S03 user":             named("spiffe://u@shop.example/gateway/public"),
	"S03 other domain":     named("spiffe://evil.example/gateway/public"),
	"S04 domain alone":     named("spiffe://shop.example"),
	"S04 root":             named("spiffe://shop.example/"),
	"S04 double slash":     named("spiffe://shop.example//gateway/public"),
	"S04 slash at the end": named(gatewayID + "/"),
	"S04 dots":             named("spiffe://shop.example/service/../gateway/public"),
	"S04 encoded":          named("spiffe://shop.example/gateway%2fpublic"),
	"S04 query":            named(gatewayID + "?x"),
	"S04 fragment":         named(gatewayID + "#x"),
	"S04 below":            named(gatewayID + "/below"),
	"S05 NUL":              named(gatewayID + "\x00.evil"),
	"S05 NUL inside":       named("spiffe://shop.example/gateway/pub\x00lic"),
	"S06 expired": func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Second)
	},
	"S06 not yet": func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
	},
	"S06 a server's": func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
	"S06 signs code": func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} },
	"S06 may not sign": func(c *x509.Certificate) {
		c.KeyUsage = x509.KeyUsageKeyEncipherment
	},
	"S12 longer name":  named(gatewayID + "2"),
	"S12 shorter name": named("spiffe://shop.example/gateway/publi"),
	"S12 other role":   named("spiffe://shop.example/service/public"),
	"S13 wildcard":     named("spiffe://shop.example/gateway/*"),
}

func named(spiffeID string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.URIs = []*url.URL{envoytest.URI(spiffeID)} }
}

func gatewayWith(change func(*x509.Certificate)) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		named(gatewayID)(c)
		change(c)
	}
}

// TestInboundRefusesStrangers shows that certificates which are not exactly a
// caller's reach nothing, whatever ext_authz says, on every chain over TLS.
func TestInboundRefusesStrangers(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]*mesh.Mesh{"strict": chain(), "permissive": permissive()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			authority, application := envoytest.NewAuthority(t), envoytest.NewUpstream(t, nil)
			e := startSidecar(t, m, authority, application, nil)
			base := "https://" + e.Address("inbound")
			refused := func(name string, config *tls.Config) {
				// From where even the clear is allowed.
				if status := try(t, by(t, "127.0.0.2", config), base+"/orders"); status != 0 && status != 403 {
					t.Errorf("%s: status %d", name, status)
				}
			}
			for name, change := range strangers {
				refused(name, authority.ClientWith(authority.Issue(gatewayWith(change))))
			}
			other := envoytest.NewAuthority(t)
			refused("S06 other authority", authority.ClientWith(other.Certificate(gatewayID)))
			refused("S07 authority without a list", authority.ClientWith(authority.Sibling().Certificate(gatewayID)))
			refused("no certificate", &tls.Config{InsecureSkipVerify: true})
			old := authority.Client(gatewayID)
			old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS12
			refused("S11 TLS 1.2", old)

			checks := len(e.agent.Checks())
			if n := application.Count("/"); n != 0 {
				t.Errorf("%d requests reached the application", n)
			}
			if status := try(t, by(t, "127.0.0.9", authority.Client(gatewayID)), base+"/orders"); status != http.StatusOK {
				t.Errorf("a caller: status %d", status)
			}
			if len(e.agent.Checks()) != checks+1 {
				t.Error("a caller was not checked")
			}
		})
	}
}

// Row S11: however the client says hello, the same is demanded of it.
func TestInboundDemandsTheSameOfAll(t *testing.T) {
	t.Parallel()
	authority, application := envoytest.NewAuthority(t), envoytest.NewUpstream(t, nil)
	e := startSidecar(t, permissive(), authority, application, nil)
	base := "https://" + e.Address("inbound")
	for name, hello := range hellos {
		good, none := authority.Client(gatewayID), &tls.Config{InsecureSkipVerify: true}
		hello(good)
		hello(none)
		if status := try(t, by(t, "127.0.0.2", good), base+"/open"); status != http.StatusOK {
			t.Errorf("%s: status %d with a certificate", name, status)
		}
		if status := try(t, by(t, "127.0.0.2", none), base+"/open"); status != 0 {
			t.Errorf("%s: status %d without a certificate", name, status)
		}
	}
	for name, config := range map[string]*tls.Config{
		"with a certificate": authority.Client(gatewayID), "without a certificate": {InsecureSkipVerify: true},
	} {
		client := by(t, "127.0.0.2", config)
		shred(client, config)
		want := 0
		if config.GetClientCertificate != nil {
			want = http.StatusOK
		}
		if status := try(t, client, base+"/open"); status != want {
			t.Errorf("%s, in 200 records: status %d, want %d", name, status, want)
		}
	}
}

var hellos = map[string]func(*tls.Config){
	"no name":    func(*tls.Config) {},
	"name":       func(c *tls.Config) { c.ServerName = "orders" },
	"upper case": func(c *tls.Config) { c.ServerName = "ORDERS.Shop.Example" },
	"other name": func(c *tls.Config) { c.ServerName = "evil.example" },
	"HTTP/1.1":   func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} },
	"HTTP/2":     func(c *tls.Config) { c.NextProtos = []string{"h2"} },
}

// shred makes client send its first message in as many records as it has bytes.
func shred(client *http.Client, config *tls.Config) {
	transport := client.Transport.(*http.Transport)
	dial := transport.DialContext
	transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		secure := tls.Client(&shredder{Conn: conn}, config)
		return secure, secure.HandshakeContext(ctx)
	}
}

type shredder struct {
	net.Conn
	done bool
}

func (s *shredder) Write(b []byte) (int, error) {
	if s.done {
		return s.Conn.Write(b)
	}
	s.done = true
	var records []byte
	for _, c := range b[5:] { // behind the record's own header
		records = append(records, b[0], b[1], b[2], 0, 1, c)
	}
	if _, err := s.Conn.Write(records); err != nil {
		return 0, err
	}
	return len(b), nil
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	authority, application := envoytest.NewAuthority(t), envoytest.NewUpstream(t, nil)
	e := startSidecar(t, chain(), authority, application, nil)
	base := "https://" + e.Address("inbound")
	sibling := authority.Sibling()
	stolen, mine, others := authority.Certificate(gatewayID), authority.Certificate(gatewayID), sibling.Certificate(gatewayID)
	status := func(certificate tls.Certificate) int {
		return try(t, by(t, "127.0.0.1", authority.ClientWith(certificate)), base+"/orders")
	}
	expect := func(when string, stolenStatus, mineStatus, othersStatus int) {
		t.Helper()
		await(t, when, func() bool { return status(stolen) == stolenStatus && status(others) == othersStatus })
		if got := status(mine); got != mineStatus {
			t.Errorf("%s: status %d for who is not meant", when, got)
		}
	}
	push := func(crls ...[]byte) {
		t.Helper()
		e.agent.Secret(trustBundle(t, authority.Roots(), crls...))
		e.agent.Push()
	}
	resuming := authority.ClientWith(stolen)
	resuming.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	open := by(t, "127.0.0.1", resuming)

	push(authority.CRL(), sibling.CRL())
	expect("two authorities are trusted", 200, 200, 200)
	if got := try(t, open, base+"/orders"); got != 200 {
		t.Fatalf("status %d", got)
	}
	push(authority.CRL(stolen), sibling.CRL())
	began := time.Now()
	expect("a certificate is revoked", 0, 200, 200)
	t.Logf("revoked after %v", time.Since(began))
	again := by(t, "127.0.0.1", resuming)
	if got := try(t, again, base+"/orders"); got != 0 {
		t.Errorf("the revoked certificate's session was resumed: status %d", got)
	}
	// Why ext_authz is told the certificate.
	if got := try(t, open, base+"/orders"); got != 200 {
		t.Errorf("status %d on a connection that was open", got)
	}
	checks := e.agent.Checks()
	if certificate := checks[len(checks)-1].GetAttributes().GetSource().GetCertificate(); certificate == "" {
		t.Error("ext_authz was not told the certificate")
	}
	push(authority.CRL(stolen))
	expect("an authority is revoked", 0, 200, 0)
}

// A session that is resumed is not verified again, so none may be.
func TestNoResumption(t *testing.T) {
	t.Parallel()
	authority, application := envoytest.NewAuthority(t), envoytest.NewUpstream(t, nil)
	e := startSidecar(t, chain(), authority, application, nil)
	config := authority.Client(gatewayID)
	config.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	for range 3 {
		conn, err := tls.Dial("tcp", e.Address("inbound"), config)
		if err != nil {
			t.Fatal(err)
		}
		// A ticket would come before the answer.
		_, _ = conn.Write([]byte("GET /orders HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n"))
		_, _ = io.Copy(io.Discard, conn)
		if conn.ConnectionState().DidResume {
			t.Error("a session was resumed")
		}
		_ = conn.Close()
	}
}

func TestTrustBundleWithoutLists(t *testing.T) {
	t.Parallel()
	if secret, err := envoy.TrustBundle([]byte("roots"), nil); err == nil {
		t.Errorf("got %v", secret)
	}
}
