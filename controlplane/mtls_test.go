package controlplane_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xdstest"
)

// failing connects with credentials that are not expected to work.
func (r *rig) failing(creds credentials.TransportCredentials) *grpc.ClientConn {
	r.t.Helper()
	conn, err := grpc.NewClient(r.server.Addr().String(), grpc.WithTransportCredentials(creds))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// report returns what becomes of a report, the smallest call there is.
func report(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := chancerypb.NewControlPlaneClient(conn).Report(ctx, &chancerypb.ReportRequest{Instance: "1"})
	return err
}

// foreign returns a certificate of another authority for the same trust domain.
func foreign(t *testing.T, id identity.ID) *identity.SVID {
	t.Helper()
	other, err := ca.Open(ca.Config{Dir: t.TempDir() + "/ca", TrustDomain: "shop.example"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	return sign(t, other, id, time.Hour)
}

func sign(t *testing.T, authority *ca.CA, id identity.ID, ttl time.Duration) *identity.SVID {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, _, err := authority.Sign(ca.Request{ID: id, Key: key.Public(), TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	svid, err := identity.ParseSVID(id, key, chain)
	if err != nil {
		t.Fatal(err)
	}
	return svid
}

// Whoever has no certificate of the mesh gets to no call, and leaves no trace.
func TestHandshakeRefuses(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.svid(orders) // the control plane is up
	ended := sign(t, controlplane.Authority(r.server), orders, time.Millisecond)
	stolen := *r.svid(orders)
	stolen.Key = foreign(t, orders).Key
	for name, creds := range map[string]credentials.TransportCredentials{
		"plaintext":            insecure.NewCredentials(),
		"an ended certificate": identity.ClientCredentials(source{ended, r.trust()}),
		"another authority's":  identity.ClientCredentials(source{foreign(t, orders), r.trust()}),
		"another's key":        identity.ClientCredentials(source{&stolen, r.trust()}),
	} {
		conn := r.failing(creds)
		if err := report(t.Context(), conn); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: report: %v", name, err)
		}
		_ = conn.Close()
	}
	if proxies := controlplane.Proxies(r.server); len(proxies) != 0 {
		t.Errorf("the book has %v", proxies)
	}
	r.until("all connections are gone", func() bool { return r.metric("chancery_connections") == 0 })
}

func TestStrangersMayOnlyAttest(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.svid(orders)
	conn := r.dialWith(nil)
	csr, _ := newCSR(t)
	calls := map[string]func() error{
		"report": func() error { return report(t.Context(), conn) },
		"enroll": func() error {
			_, err := chancerypb.NewControlPlaneClient(conn).Enroll(t.Context(), &chancerypb.EnrollRequest{Csr: csr})
			return err
		},
		"stream":             func() error { return xdstest.Open(t, conn).Ended() },
		"state-of-the-world": func() error { return stateOfTheWorld(t, conn) },
		"an unknown service": func() error {
			return conn.Invoke(t.Context(), "/chancery.v1.AttestationX/Join", &chancerypb.ReportRequest{}, &chancerypb.ReportResponse{})
		},
		"a path with no root": func() error {
			return conn.Invoke(t.Context(), "chancery.v1.ControlPlane/Enroll", &chancerypb.EnrollRequest{Csr: csr}, &chancerypb.EnrollResponse{})
		},
	}
	want := map[string]codes.Code{"an unknown service": codes.Unimplemented, "a path with no root": codes.Unimplemented}
	for name, call := range calls {
		code := codes.Unauthenticated
		if c, ok := want[name]; ok {
			code = c
		}
		if err := call(); status.Code(err) != code {
			t.Errorf("%s: %v, want %v", name, err, code)
		}
	}
	if len(controlplane.Proxies(r.server)) != 0 || r.metric("chancery_certificates_signed_total") != 0 {
		t.Error("a stranger left a trace")
	}
}

func stateOfTheWorld(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(t.Context())
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

// The paths of methods are looked up as they are, for those who have a
// certificate as well.
func TestMethodsHaveOneName(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	conn := r.dial(orders)
	for _, path := range []string{
		"chancery.v1.ControlPlane/Report", "//chancery.v1.ControlPlane/Report", "/chancery.v1.controlplane/Report",
		"/chancery.v1.ControlPlane/Report/", "/chancery.v1.ControlPlane%2fReport", "/chancery.v1.ControlPlane//Report",
	} {
		err := conn.Invoke(t.Context(), path, &chancerypb.ReportRequest{}, &chancerypb.ReportResponse{})
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// A certificate that nobody remembers having signed is good for nothing, though
// a trusted authority signed it: here, because the ledger is an old backup.
func TestCertificatesOutsideTheLedgerAreRefused(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.svid(inventory)
	r.stop()
	path := filepath.Join(r.state, "ca", "ledger")
	backup, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r.start()
	r.svid(orders)
	r.stop()
	if err := os.WriteFile(path, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	if err := report(t.Context(), r.dial(inventory)); err != nil {
		t.Errorf("a certificate of before: %v", err)
	}
	conn := r.dial(orders)
	csr, _ := newCSR(t)
	_, err = chancerypb.NewControlPlaneClient(conn).Enroll(t.Context(), &chancerypb.EnrollRequest{Csr: csr})
	for name, err := range map[string]error{
		"report": report(t.Context(), conn), "enroll": err, "stream": xdstest.Open(t, conn).Ended(),
	} {
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRevocationCutsWhatIsOpen(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	victim, other := r.open(orders), r.open(inventory)
	subscribeAll(victim, held{})
	subscribeAll(other, held{})
	other.Subscribe(trustType, "*")
	before := r.trustOf(other.NextACK())

	if _, err := controlplane.Authority(r.server).RevokeIdentity(orders, "stolen"); err != nil {
		t.Fatal(err)
	}
	_ = victim.Ended()
	after := r.trustOf(other.NextACK())
	if after.Sequence() <= before.Sequence() || !after.IsRevoked(r.svid(orders).Fingerprint()) {
		t.Errorf("trust %d after %d", after.Sequence(), before.Sequence())
	}
	conn := r.failing(identity.ClientCredentials(source{r.svid(orders), r.trust()}))
	if err := report(t.Context(), conn); status.Code(err) != codes.Unavailable {
		t.Errorf("a new connection: %v", err)
	}
	other.Quiet(quiet)

	delete(r.svids, orders) // attested again
	subscribeAll(r.open(orders), held{})
}

func (r *rig) trustOf(resp *discoveryv3.DeltaDiscoveryResponse) *identity.Trust {
	r.t.Helper()
	var m chancerypb.Trust
	decode(r.t, resp, &m)
	trust, err := identity.ParseTrust(&m)
	if err != nil {
		r.t.Fatal(err)
	}
	return trust
}

// An authority that is revoked takes the connections of all along that it
// signed, and of no others; the control plane itself is with the new one by
// then.
func TestRevokedAuthorityCutsWhatIsOpen(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	victim := r.open(orders)
	subscribeAll(victim, held{})
	authority := controlplane.Authority(r.server)
	old := authority.Authorities()[0].ID
	next, err := authority.Prepare(false)
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.Activate(next.ID); err != nil {
		t.Fatal(err)
	}
	other := r.open(inventory) // of the next one
	subscribeAll(other, held{})
	victim.Quiet(quiet)
	if err := authority.Taint(old); err != nil {
		t.Fatal(err)
	}
	r.until("the control plane has another certificate", func() bool { return controlplane.SVID(r.server).Authority() == next.ID })
	victim.Quiet(quiet)
	if err := authority.Revoke(old); err != nil {
		t.Fatal(err)
	}
	_ = victim.Ended()
	other.Quiet(quiet)
}

func TestConnectionEndsWithItsCertificate(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.svid(orders)
	svid := sign(t, controlplane.Authority(r.server), orders, 2*time.Second)
	c := xdstest.Open(t, r.dialWith(svid))
	subscribeAll(c, held{})
	if err := c.Ended(); time.Now().Before(svid.Expires()) {
		t.Errorf("ended before its time: %v", err)
	}
}

// Whatever happens to be in the handshake when a certificate is revoked, calls
// look again.
func TestCallsLookAtTheCertificateAgain(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	conn := r.dial(orders)
	if err := report(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	defer controlplane.HoldTrust(r.server)()
	if _, err := controlplane.Authority(r.server).RevokeSerial(r.svid(orders).Serial(), ""); err != nil {
		t.Fatal(err)
	}
	csr, _ := newCSR(t)
	_, err := chancerypb.NewControlPlaneClient(conn).Enroll(t.Context(), &chancerypb.EnrollRequest{Csr: csr})
	for name, err := range map[string]error{
		"report": report(t.Context(), conn), "enroll": err, "stream": xdstest.Open(t, conn).Ended(),
	} {
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
}
