package sidecar_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

var trustType = xds.TypeURL(&chancerypb.Trust{})

// authority is what a small control plane knows of identities: a real
// certificate authority, its own certificate, and join tokens of the simplest
// kind.
type authority struct {
	chancerypb.UnimplementedAttestationServer

	t  *testing.T
	ca *ca.CA
	mu sync.Mutex
	// own is the control plane's certificate.
	own *identity.SVID
	// skew sets the clock of the authority apart.
	skew atomic.Int64
	// ttl is the life of the next certificates.
	ttl time.Duration
	// tokens are bound to the key that used them first.
	tokens map[string]crypto.PublicKey
	// attempts count calls, joins and renewals those that were let in.
	attempts, joins, renewals int
	// lose has so many answers lost, after everything was done.
	lose int
	// spoil changes answers.
	spoil func(*chancerypb.EnrollResponse)
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, ttl: time.Hour, tokens: map[string]crypto.PublicKey{}}
	made, err := ca.Open(ca.Config{
		Dir: filepath.Join(t.TempDir(), "ca"), TrustDomain: trustDomain, Logger: slog.New(slog.DiscardHandler),
		Now: a.now,
	})
	check(t, err)
	t.Cleanup(func() { check(t, made.Close()) })
	a.ca = made
	a.own = a.issue(identity.ControlPlane)
	return a
}

// issue makes a key with a certificate of id.
func (a *authority) issue(id identity.ID) *identity.SVID {
	a.t.Helper()
	key := newKey(a.t)
	chain, _, err := a.ca.Sign(ca.Request{ID: id, Key: key.Public(), TTL: 24 * time.Hour})
	check(a.t, err)
	svid, err := identity.ParseSVID(id, key, chain)
	check(a.t, err)
	return svid
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	return key
}

// SVID implements identity.Source.
func (a *authority) SVID() *identity.SVID {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.own
}

// replace gives the control plane a certificate of the authority that is active.
func (a *authority) replace() {
	own := a.issue(identity.ControlPlane)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.own = own
}

// Trust implements identity.Source.
func (a *authority) Trust() *identity.Trust {
	trust, err := identity.ParseTrust(a.ca.Trust())
	if err != nil {
		a.t.Error(err)
	}
	return trust
}

// token makes a join token.
func (a *authority) token() string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	pins := identity.PinsOfRoots(a.ca.Trust().GetRoots())
	token := "chj_0123456789abcdef_" + hex.EncodeToString(secret) + "_" + pins.String()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens[token] = nil
	return token
}

// JoinWithToken implements the Attestation service.
func (a *authority) JoinWithToken(_ context.Context, req *chancerypb.JoinWithTokenRequest) (*chancerypb.EnrollResponse, error) {
	a.mu.Lock()
	a.attempts++
	a.mu.Unlock()
	key, err := identity.PublicKey(req.GetEnroll().GetCsr())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	role, name, _ := strings.Cut(req.GetWorkload(), "/")
	a.mu.Lock()
	bound, known := a.tokens[req.GetToken()]
	if !known || (bound != nil && !bound.(*ecdsa.PublicKey).Equal(key)) {
		a.mu.Unlock()
		return nil, status.Error(codes.Unauthenticated, "token is spent")
	}
	a.tokens[req.GetToken()] = key
	a.joins++
	a.mu.Unlock()
	return a.sign(ca.Request{ID: identity.ID{Role: identity.Role(role), Name: name}, Key: key})
}

// renew signs for the peer of a call.
func (a *authority) renew(ctx context.Context, csr []byte) (*chancerypb.EnrollResponse, error) {
	p, _ := peer.FromContext(ctx)
	caller := p.AuthInfo.(identity.Peer)
	if caller.Certificate == nil {
		return nil, status.Error(codes.Unauthenticated, "no certificate")
	}
	key, err := identity.PublicKey(csr)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return a.renewFor(caller.ID, caller.Certificate.SerialNumber.Text(16), key)
}

func (a *authority) renewFor(id identity.ID, serial string, key crypto.PublicKey) (*chancerypb.EnrollResponse, error) {
	parent, _ := a.ca.Find(serial)
	a.mu.Lock()
	a.renewals++
	a.mu.Unlock()
	return a.sign(ca.Request{ID: id, Key: key, Lineage: parent.Lineage, Parent: parent.Serial})
}

func (a *authority) sign(req ca.Request) (*chancerypb.EnrollResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	req.TTL = a.ttl
	chain, _, err := a.ca.Sign(req)
	if err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	if a.lose > 0 {
		a.lose--
		return nil, status.Error(codes.Unavailable, "lost on the way")
	}
	resp := &chancerypb.EnrollResponse{Chain: chain, Trust: a.ca.Trust()}
	if a.spoil != nil {
		a.spoil(resp)
	}
	return resp, nil
}

func (a *authority) counts() (joins, renewals int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.joins, a.renewals
}

// attempted returns how often somebody tried to join.
func (a *authority) attempted() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.attempts
}

// losing has the next n answers lost.
func (a *authority) losing(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lose = n
}

// spend binds a token to somebody's key.
func (a *authority) spend(token string, key crypto.PublicKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens[token] = key
}

// encodeRoots returns the trust bundle in PEM.
func encodeRoots(a *authority) []byte {
	var text []byte
	for _, der := range a.ca.Trust().GetRoots() {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return text
}

// live sets the life of the next certificates.
func (a *authority) live(ttl time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ttl = ttl
}

// shift sets the authority's clock apart from all others.
func (a *authority) shift(d time.Duration) {
	a.skew.Store(int64(d))
}

func (a *authority) now() time.Time { return time.Now().Add(time.Duration(a.skew.Load())) }

func cloneOf(m *chancerypb.Trust) *chancerypb.Trust { return proto.CloneOf(m) }

func sameKey(t *testing.T, csr, other []byte) bool {
	t.Helper()
	a, err := identity.PublicKey(csr)
	check(t, err)
	b, err := identity.PublicKey(other)
	check(t, err)
	return a.(*ecdsa.PublicKey).Equal(b)
}

func sameKeyAs(t *testing.T, csr []byte, s *identity.SVID) bool {
	t.Helper()
	a, err := identity.PublicKey(csr)
	check(t, err)
	return a.(*ecdsa.PublicKey).Equal(s.Key.Public())
}

func assertPrivate(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	check(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("%s has mode %v", path, info.Mode())
	}
}

func otherKey(t *testing.T) any {
	t.Helper()
	return newKey(t).Public()
}
