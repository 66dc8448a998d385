package identity_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source is an identity.Source that changes.
type source struct {
	mu    sync.Mutex
	svid  *identity.SVID
	trust *identity.Trust
}

func (s *source) SVID() *identity.SVID   { s.mu.Lock(); defer s.mu.Unlock(); return s.svid }
func (s *source) Trust() *identity.Trust { s.mu.Lock(); defer s.mu.Unlock(); return s.trust }

func (s *source) setTrust(t *identity.Trust) { s.mu.Lock(); defer s.mu.Unlock(); s.trust = t }

// controlPlane returns the source of m's control plane.
func (m mesh) controlPlane(t *testing.T) *source {
	t.Helper()
	return &source{svid: m.svid(t, identity.ControlPlane), trust: m.trust(t)}
}

// agent returns the source of a workload's agent.
func (m mesh) agent(t *testing.T, id identity.ID) *source {
	t.Helper()
	return &source{svid: m.svid(t, id), trust: m.trust(t)}
}

// side is what one side of a handshake has of the other.
type side struct {
	conn net.Conn
	peer identity.Peer
	err  error
}

// pipe returns two ends of a connection that buffers, as TLS needs it: each
// side may speak last.
func pipe(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// shake does one handshake, and has each side say a byte. The client hears of
// the server's verdict only then.
func shake(t *testing.T, client, server credentials.TransportCredentials) (c, s side) {
	t.Helper()
	rawClient, rawServer := pipe(t)
	return shakeOver(t, rawClient, rawServer, client, server)
}

func shakeOver(t *testing.T, rawClient, rawServer net.Conn, client, server credentials.TransportCredentials) (c, s side) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		var info credentials.AuthInfo
		if s.conn, info, s.err = server.ServerHandshake(rawServer); s.err == nil {
			s.peer = info.(identity.Peer)
			_, s.err = s.conn.Write([]byte{1})
		}
	}()
	var info credentials.AuthInfo
	if c.conn, info, c.err = client.ClientHandshake(t.Context(), "control-plane:8600", rawClient); c.err == nil {
		c.peer = info.(identity.Peer)
		_, c.err = io.ReadFull(c.conn, make([]byte, 1))
	}
	<-done
	for _, end := range []side{c, s} {
		if end.conn != nil {
			t.Cleanup(func() { end.conn.Close() })
		}
	}
	return c, s
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	server := identity.NewServerCredentials(m.controlPlane(t))
	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.root.cert.Raw})
	ofBundle, err := identity.PinsOfBundle(bundle)
	if err != nil {
		t.Fatal(err)
	}
	ofText, err := identity.ParsePins(ofBundle.String())
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		client credentials.TransportCredentials
		want   identity.ID
	}{
		"a workload":                 {identity.ClientCredentials(m.agent(t, orders)), orders},
		"one that has trust only":    {identity.ClientCredentials(&source{trust: m.trust(t)}), identity.ID{}},
		"a newcomer with a bundle":   {identity.JoinCredentials(ofBundle), identity.ID{}},
		"a newcomer with the pin":    {identity.JoinCredentials(ofText), identity.ID{}},
		"a newcomer with many roots": {identity.JoinCredentials(identity.PinsOfRoots([][]byte{[]byte("x"), m.root.cert.Raw})), identity.ID{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, s := shake(t, tt.client, server)
			if err := errors.Join(c.err, s.err); err != nil {
				t.Fatal(err)
			}
			if c.peer.ID != identity.ControlPlane || s.peer.ID != tt.want || (s.peer.Certificate == nil) != tt.want.IsZero() {
				t.Errorf("the server has %v, the client %v", s.peer.ID, c.peer.ID)
			}
		})
	}
}

// Rows S01 to S06 and X01 over TLS: who shows a certificate that is not good is
// refused, and not taken for one who has none.
func TestHandshakeRefusesClients(t *testing.T) {
	t.Parallel()
	m, strange := newMesh(t), newMesh(t)
	server := identity.NewServerCredentials(m.controlPlane(t))
	good := m.svid(t, orders)
	of := func(change func(*x509.Certificate)) *identity.SVID {
		key := newKey(t)
		template := leafTemplate(orders.SPIFFE(trustDomain))
		change(template)
		// Package tls sends it, also if package x509 would not read it.
		leaf := &x509.Certificate{Raw: m.authority.signDER(t, template, key.Public()), PublicKey: key.Public()}
		return &identity.SVID{ID: orders, TrustDomain: trustDomain, Chain: m.chain(leaf), Key: key}
	}
	named := func(uri string) *identity.SVID {
		return of(func(c *x509.Certificate) { c.ExtraExtensions = leafTemplate(uri).ExtraExtensions })
	}
	stolen := *good
	stolen.Key = newKey(t)
	unspoilt := of(func(*x509.Certificate) {})
	if c, s := shake(t, identity.ClientCredentials(&source{svid: unspoilt, trust: m.trust(t)}), server); c.err != nil || s.peer.ID != orders {
		t.Fatal("a good one is refused:", c.err, s.err)
	}
	tests := map[string]*identity.SVID{
		"no name": of(func(c *x509.Certificate) {
			c.ExtraExtensions = nil
			c.Subject.CommonName = "spiffe://shop.example/service/orders"
		}),
		"a longer trust domain":        named("spiffe://shop.example.evil.com/service/orders"),
		"an upper-case scheme":         named("SPIFFE://shop.example/service/orders"),
		"an encoded name":              named("spiffe://shop.example/service/%6frders"),
		"a NUL":                        named("spiffe://shop.example/service/orders\x00.evil"),
		"expired":                      of(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = ago(time.Hour), ago(time.Second) }),
		"serverAuth only":              of(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }),
		"an authority's":               of(func(c *x509.Certificate) { c.IsCA = true; c.KeyUsage |= x509.KeyUsageCertSign }),
		"another mesh's":               strange.svid(t, orders),
		"another's key":                &stolen,
		"the certificate of authority": {Chain: m.chain(m.authority.cert)[1:], Key: m.authority.key},
	}
	for name, svid := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, s := shake(t, identity.ClientCredentials(&source{svid: svid, trust: m.trust(t)}), server)
			if s.err == nil || c.err == nil {
				t.Errorf("admitted as %v", s.peer.ID)
			}
		})
	}
	empty := identity.NewServerCredentials(&source{svid: m.svid(t, identity.ControlPlane)})
	if _, s := shake(t, identity.ClientCredentials(&source{svid: good, trust: m.trust(t)}), empty); s.err == nil {
		t.Error("a server without trust admitted somebody")
	}
	none := identity.NewServerCredentials(&source{trust: m.trust(t)})
	if c, _ := shake(t, identity.ClientCredentials(&source{trust: m.trust(t)}), none); c.err == nil {
		t.Error("a server without a certificate served")
	}
}

func TestHandshakeRefusesServers(t *testing.T) {
	t.Parallel()
	m, strange := newMesh(t), newMesh(t)
	plane := m.controlPlane(t)
	pins := identity.PinsOfRoots([][]byte{m.root.cert.Raw})
	served := plane.SVID()
	revocation := func(t *chancerypb.Trust) { t.Revoked = append(t.Revoked, revoked(served.Chain[0])) }
	tests := map[string]struct {
		server *source
		client credentials.TransportCredentials
	}{
		"a workload":                     {m.agent(t, orders), identity.ClientCredentials(m.agent(t, orders))},
		"a workload, to a newcomer":      {m.agent(t, orders), identity.JoinCredentials(pins)},
		"another mesh's":                 {strange.controlPlane(t), identity.ClientCredentials(m.agent(t, orders))},
		"another mesh's, to a newcomer":  {strange.controlPlane(t), identity.JoinCredentials(pins)},
		"to one who trusts nobody":       {plane, identity.ClientCredentials(&source{})},
		"to one who pins nothing":        {plane, identity.JoinCredentials(identity.Pins{})},
		"to one who pins its leaf":       {plane, identity.JoinCredentials(identity.PinsOfRoots([][]byte{served.Chain[0].Raw}))},
		"revoked":                        {plane, identity.ClientCredentials(&source{trust: m.trust(t, revocation)})},
		"a pinned root but another leaf": {&source{svid: &identity.SVID{Chain: append(strange.svid(t, identity.ControlPlane).Chain, m.root.cert), Key: newKey(t)}}, identity.JoinCredentials(pins)},
		"expired, to a newcomer": {&source{svid: m.svid(t, identity.ControlPlane, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = ago(time.Hour), ago(time.Second)
		})}, identity.JoinCredentials(pins)},
		"without its root, to a newcomer": {&source{svid: &identity.SVID{Chain: served.Chain[:2], Key: served.Key}}, identity.JoinCredentials(pins)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c, _ := shake(t, tt.client, identity.NewServerCredentials(tt.server)); c.err == nil {
				t.Errorf("believed %v", c.peer.ID)
			}
		})
	}
}

// Rows X01 and S11: what is not our TLS gets no answer, and nobody comes back
// by a session.
func TestHandshakeRefusesOtherTLS(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	server := identity.NewServerCredentials(m.controlPlane(t))
	own := m.svid(t, orders).TLSCertificate()
	config := func(change func(*tls.Config)) *tls.Config {
		c := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{own}}
		change(c)
		return c
	}
	for name, c := range map[string]*tls.Config{
		"TLS 1.2":     config(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }),
		"no ALPN":     config(func(c *tls.Config) { c.NextProtos = nil }),
		"HTTP/1 only": config(func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c, s := shake(t, plainTLS{c}, server); s.err == nil || c.err == nil {
				t.Error("admitted")
			}
		})
	}
	t.Run("plaintext", func(t *testing.T) {
		t.Parallel()
		client, raw := pipe(t)
		go client.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
		if _, _, err := server.ServerHandshake(raw); err == nil {
			t.Error("admitted")
		}
	})
	t.Run("resumption", func(t *testing.T) {
		t.Parallel()
		cache := &sessions{}
		c := config(func(c *tls.Config) { c.ClientSessionCache = cache })
		for range 2 {
			c, s := shake(t, plainTLS{c}, server)
			if err := errors.Join(c.err, s.err); err != nil {
				t.Fatal(err)
			}
		}
		if cache.put != 0 {
			t.Errorf("%d sessions were given out", cache.put)
		}
	})
}

// plainTLS are the credentials of a client that is not ours.
type plainTLS struct{ *tls.Config }

func (p plainTLS) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn := tls.Client(raw, p.Config)
	return conn, identity.Peer{}, conn.HandshakeContext(ctx)
}

func (plainTLS) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("a client's")
}
func (plainTLS) Info() credentials.ProtocolInfo            { return credentials.ProtocolInfo{} }
func (p plainTLS) Clone() credentials.TransportCredentials { return p }
func (plainTLS) OverrideServerName(string) error           { return nil }

// sessions counts what a server lets a client keep.
type sessions struct{ put int }

func (s *sessions) Put(string, *tls.ClientSessionState)        { s.put++ }
func (s *sessions) Get(string) (*tls.ClientSessionState, bool) { return nil, false }

func TestCut(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	plane := m.controlPlane(t)
	server := identity.NewServerCredentials(plane)
	inventory := identity.ID{Role: identity.RoleService, Name: "inventory"}
	agent := m.agent(t, orders)
	c1, s1 := shake(t, identity.ClientCredentials(agent), server)
	c2, s2 := shake(t, identity.ClientCredentials(m.agent(t, inventory)), server)
	if err := errors.Join(c1.err, s1.err, c2.err, s2.err); err != nil {
		t.Fatal(err)
	}
	revocation := revoked(agent.SVID().Chain[0])
	plane.setTrust(m.trust(t, func(t *chancerypb.Trust) { t.Revoked = append(t.Revoked, revocation) }))
	drop := func(p identity.Peer) bool { return p.ID == orders }
	if n := server.Cut(drop); n != 1 {
		t.Errorf("cut %d", n)
	}
	if _, err := c1.conn.Read(make([]byte, 1)); err == nil {
		t.Error("the revoked one's connection is open")
	}
	if _, err := s2.conn.Write([]byte{1}); err != nil {
		t.Errorf("the other's connection: %v", err)
	}
	if _, s := shake(t, identity.ClientCredentials(agent), server); !errors.Is(s.err, identity.ErrRevoked) {
		t.Errorf("it came back: %v", s.err)
	}
	// What closed is not remembered.
	s2.conn.Close()
	if n := server.Cut(func(identity.Peer) bool { return true }); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// Whoever is revoked while he shakes hands does not stay: the trust changes
// after his certificate was looked at, and Cut comes before he is known.
func TestCutMeetsHandshakes(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	agent := m.agent(t, orders)
	plane := &late{source: m.controlPlane(t), next: m.trust(t, func(t *chancerypb.Trust) {
		t.Revoked = append(t.Revoked, revoked(agent.SVID().Chain[0]))
	})}
	for after := range 3 {
		plane.after, plane.asked = after, 0
		server := identity.NewServerCredentials(plane)
		plane.changed = func() { server.Cut(func(identity.Peer) bool { return true }) }
		_, s := shake(t, identity.ClientCredentials(agent), server)
		if s.err == nil {
			t.Errorf("revoked after %d looks: admitted", after)
		}
		if n := server.Cut(func(identity.Peer) bool { return true }); n != 0 {
			t.Errorf("revoked after %d looks: %d connections are left", after, n)
		}
	}
}

// late is a source whose trust changes after it was asked for some times.
type late struct {
	*source
	next         *identity.Trust
	after, asked int
	changed      func()
}

func (l *late) Trust() *identity.Trust {
	l.asked++
	if l.asked > l.after {
		return l.next
	}
	if l.asked == l.after {
		l.changed() // while who asked still has the old one
	}
	return l.source.Trust()
}

func TestConnectionsEnd(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		svid bool
		life time.Duration
	}{"with their certificate": {true, 10 * time.Second}, "that have none": {false, 2 * time.Minute}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newMesh(t)
				agent := &source{trust: m.trust(t)}
				if tt.svid {
					agent.svid = m.svid(t, orders, func(c *x509.Certificate) {
						c.NotBefore, c.NotAfter = ago(time.Minute), ago(-tt.life)
					})
				}
				server := identity.NewServerCredentials(m.controlPlane(t))
				client, raw := net.Pipe()
				c, s := shakeOver(t, client, raw, identity.ClientCredentials(agent), server)
				if err := errors.Join(c.err, s.err, raw.SetDeadline(time.Time{})); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				_, err := c.conn.Read(make([]byte, 1))
				if lived := time.Since(start); err == nil || lived > tt.life || lived < tt.life-2*time.Second {
					t.Errorf("lived %v, want %v: %v", lived, tt.life, err)
				}
				synctest.Wait()
				if n := server.Cut(func(identity.Peer) bool { return true }); n != 0 {
					t.Errorf("%d connections are left", n)
				}
			})
		})
	}
}

func TestHandshakesHaveADeadline(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	for name, tt := range map[string]struct {
		shake func(net.Conn) error
		want  time.Duration
	}{
		"server": {func(c net.Conn) error {
			_, _, err := identity.NewServerCredentials(m.controlPlane(t)).ServerHandshake(c)
			return err
		}, 5 * time.Second},
		"client": {func(c net.Conn) error {
			_, _, err := identity.ClientCredentials(m.agent(t, orders)).ClientHandshake(context.Background(), "", c)
			return err
		}, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				silent, raw := net.Pipe()
				go io.Copy(io.Discard, silent)
				defer silent.Close()
				start := time.Now()
				if err := tt.shake(raw); err == nil || time.Since(start) != tt.want {
					t.Errorf("after %v: %v", time.Since(start), err)
				}
			})
		})
	}
}

// gRPC works over it, hears who calls, and leaves nothing behind.
func TestGRPC(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	creds := identity.NewServerCredentials(m.controlPlane(t))
	var callers []identity.Peer
	server := grpc.NewServer(grpc.Creds(creds), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			p, _ := peer.FromContext(ctx)
			callers = append(callers, p.AuthInfo.(identity.Peer))
			return next(ctx, req)
		}))
	healthpb.RegisterHealthServer(server, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	defer server.Stop()
	agent := m.agent(t, orders)
	for _, tc := range []credentials.TransportCredentials{
		identity.ClientCredentials(agent), identity.JoinCredentials(identity.PinsOfRoots([][]byte{m.root.cert.Raw})),
	} {
		conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(tc))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	want := []identity.Peer{{ID: orders, Certificate: agent.SVID().Chain[0]}, {}}
	if !slices.EqualFunc(callers, want, func(a, b identity.Peer) bool {
		return a.ID == b.ID && (a.Certificate == nil || a.Certificate.Equal(b.Certificate))
	}) {
		t.Errorf("callers were %v", callers)
	}
	server.Stop()
	if n := creds.Cut(func(identity.Peer) bool { return true }); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

func TestPinsRefuse(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	root := block("CERTIFICATE", m.root.cert.Raw)
	for name, bundle := range map[string]string{
		"nothing": "", "no PEM": "hello", "a leaf": block("CERTIFICATE", m.leaf(t, orders).Raw),
		"a key": block("PRIVATE KEY", m.root.cert.Raw), "something else behind": root + "hello",
		"garbage": block("CERTIFICATE", []byte("x")), "too many": strings.Repeat(root, 17),
	} {
		if p, err := identity.PinsOfBundle([]byte(bundle)); err == nil {
			t.Errorf("bundle: %s: %v", name, p)
		}
	}
	pin := identity.PinsOfRoots([][]byte{m.root.cert.Raw}).String()
	for _, text := range []string{"", ".", pin + ".", pin[2:], "zz" + pin[2:], pin + "," + pin, pin + "\n", strings.Repeat(pin+".", 16) + pin} {
		if p, err := identity.ParsePins(text); err == nil {
			t.Errorf("%q: %v", text, p)
		}
	}
}

func TestParseSVIDRefuses(t *testing.T) {
	t.Parallel()
	m, strange := newMesh(t), newMesh(t)
	good := m.svid(t, orders)
	der := func(chain ...*x509.Certificate) (ders [][]byte) {
		for _, c := range chain {
			ders = append(ders, c.Raw)
		}
		return ders
	}
	leaf := good.Chain[0]
	if s, err := identity.ParseSVID(orders, good.Key, der(good.Chain...)); err != nil ||
		s.SPIFFEID() != "spiffe://shop.example/service/orders" || s.Authority() != m.authority.id() ||
		s.Serial() != leaf.SerialNumber.Text(16) || !s.Expires().Equal(leaf.NotAfter) || len(s.TLSCertificate().Certificate) != 3 {
		t.Fatalf("the good one: %+v, %v", s, err)
	}
	serverOnly := m.leaf(t, orders, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })
	for name, tt := range map[string]struct {
		id    identity.ID
		chain [][]byte
	}{
		"nothing":            {orders, nil},
		"garbage":            {orders, [][]byte{[]byte("x")}},
		"another's name":     {identity.ID{Role: identity.RoleService, Name: "order"}, der(good.Chain...)},
		"another's key":      {orders, der(m.chain(m.leaf(t, orders))...)},
		"the wrong order":    {orders, der(leaf, m.root.cert, m.authority.cert)},
		"another's issuer":   {orders, der(leaf, strange.authority.cert)},
		"wrong usages":       {orders, der(m.chain(serverOnly)...)},
		"an authority first": {orders, der(m.authority.cert, m.root.cert)},
		"more than any":      {orders, slices.Repeat(der(leaf), 9)},
	} {
		if _, err := identity.ParseSVID(tt.id, good.Key, tt.chain); err == nil {
			t.Errorf("%s: parsed", name)
		}
	}
	if _, err := identity.ParseSVID(orders, nil, der(good.Chain...)); err == nil {
		t.Error("no key: parsed")
	}
}
