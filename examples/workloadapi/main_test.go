package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/identity/workload"
)

const trustDomain = "shop.example"

// TestClientAndServer runs both on sockets as agents serve them, through a
// rotation of certificates and of the authority.
func TestClientAndServer(t *testing.T) {
	t.Parallel()
	authority := openCA(t)
	orders, web := newAgent(t, authority, "orders"), newAgent(t, authority, "web")
	serverSource, clientSource := orders.source(t), web.source(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, l, serverSource, spiffeID("web")) }()
	defer func() { cancel(); check(t, <-done) }()
	url := "https://" + l.Addr().String()
	call := func(source *workloadapi.X509Source, server string) (string, error) {
		c := newClient(source, spiffeID(server))
		defer c.CloseIdleConnections()
		return c.get(t.Context(), url)
	}
	greeted := func() {
		t.Helper()
		if answer, err := call(clientSource, "orders"); err != nil || answer != "hello "+spiffeID("web").String()+"\n" {
			t.Errorf("answer %q, %v", answer, err)
		}
	}
	greeted()
	if _, err := call(clientSource, "stock"); err == nil || !strings.Contains(err.Error(), "unexpected ID") {
		t.Errorf("a call of another server: %v", err)
	}
	if _, err := call(newAgent(t, authority, "webb").source(t), "orders"); err == nil {
		t.Error("another caller was answered")
	}

	active := authority.Authorities()[0].ID
	for range 2 {
		next, err := authority.Prepare(true)
		check(t, err)
		orders.publish(t)
		web.publish(t)
		greeted() // the roots of the next are known before it signs
		check(t, authority.Activate(next.ID))
		orders.renew(t)
		greeted() // one side of each
		web.renew(t)
		check(t, authority.Taint(active))
		check(t, authority.Revoke(active))
		active = next.ID
		orders.publish(t)
		web.publish(t)
		greeted()
		if id := web.svid.Authority(); id != next.ID {
			t.Errorf("the caller's certificate is of %s, not of %s", id, next.ID)
		}
	}
	cold := newAgent(t, openCA(t), "web")
	if _, err := call(cold.source(t), "orders"); err == nil {
		t.Error("a caller of another authority was answered")
	}
}

// agent is what an agent does for its application.
type agent struct {
	ca     *ca.CA
	id     identity.ID
	server *workload.Server
	socket string
	svid   *identity.SVID
	// sources are what the application has its certificates from.
	sources []*workloadapi.X509Source
}

func newAgent(t *testing.T, authority *ca.CA, service string) *agent {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // the path of a socket is short
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	a := &agent{
		ca: authority, id: identity.ID{Role: identity.RoleService, Name: service},
		server: workload.New(workload.Config{UID: uint32(os.Geteuid()), Logger: slog.New(slog.DiscardHandler)}),
		socket: filepath.Join(dir, "workload.sock"),
	}
	l, err := a.server.Listen(a.socket)
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.server.Run(ctx, l) }()
	t.Cleanup(func() { cancel(); check(t, <-done) })
	a.renew(t)
	return a
}

// renew gets another certificate.
func (a *agent) renew(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	chain, _, err := a.ca.Sign(ca.Request{ID: a.id, Key: key.Public(), TTL: time.Hour})
	check(t, err)
	a.svid, err = identity.ParseSVID(a.id, key, chain)
	check(t, err)
	a.publish(t)
}

// publish gives the application what there is now, and waits until it has it.
func (a *agent) publish(t *testing.T) {
	t.Helper()
	trust, err := identity.ParseTrust(a.ca.Trust())
	check(t, err)
	check(t, a.server.Set(workload.State{
		SVID:        &workload.SVID{SPIFFEID: a.svid.SPIFFEID(), Chain: a.svid.Chain, Key: a.svid.Key},
		TrustDomain: trust.TrustDomain(), Roots: trust.Roots(),
	}))
	for _, source := range a.sources {
		for deadline := time.Now().Add(10 * time.Second); !has(source, a.svid, len(trust.Roots())); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the application waits for its certificate")
			}
		}
	}
}

func has(source *workloadapi.X509Source, svid *identity.SVID, roots int) bool {
	got, err := source.GetX509SVID()
	bundle, bundleErr := source.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString(trustDomain))
	return errors.Join(err, bundleErr) == nil && got.Certificates[0].Equal(svid.Chain[0]) && len(bundle.X509Authorities()) == roots
}

func (a *agent) source(t *testing.T) *workloadapi.X509Source {
	t.Helper()
	source, err := workloadapi.NewX509Source(t.Context(),
		workloadapi.WithClientOptions(workloadapi.WithAddr("unix:"+a.socket)))
	check(t, err)
	t.Cleanup(func() { _ = source.Close() })
	a.sources = append(a.sources, source)
	return source
}

func openCA(t *testing.T) *ca.CA {
	t.Helper()
	authority, err := ca.Open(ca.Config{Dir: filepath.Join(t.TempDir(), "ca"), TrustDomain: trustDomain})
	check(t, err)
	t.Cleanup(func() { _ = authority.Close() })
	return authority
}

func spiffeID(service string) spiffeid.ID {
	return spiffeid.RequireFromString("spiffe://" + trustDomain + "/service/" + service)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
