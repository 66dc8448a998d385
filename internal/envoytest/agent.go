package envoytest

import (
	"context"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"
)

// Agent stands in for the agent of one Envoy: delta ADS, SDS and ext_authz on
// one Unix socket.
type Agent struct {
	// Dir is its directory, with room for Envoy's admin socket.
	Dir string
	// Socket is the path of its socket.
	Socket string

	t      testing.TB
	node   string
	cache  cachev3.SnapshotCache
	server *grpc.Server

	// deciding is held while check runs, and mu is not: check may take a lock that
	// others hold while they ask for Checks.
	deciding sync.Mutex

	mu        sync.Mutex
	version   int
	resources map[string]map[string]types.Resource // by type URL and name
	nacks     []string
	check     func(*authv3.CheckRequest) *authv3.CheckResponse
	checks    []*authv3.CheckRequest
	authv3.UnimplementedAuthorizationServer
}

// NewAgent starts an agent for the Envoy of that node ID. It ends with the
// test, and denies everything until [Agent.Authorize].
func NewAgent(t testing.TB, nodeID string) *Agent {
	t.Helper()
	// The path of a socket is short; that of t.TempDir may not be.
	dir, err := os.MkdirTemp("", "envoy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	a := &Agent{
		Dir:       dir,
		Socket:    filepath.Join(dir, "envoy.sock"),
		t:         t,
		node:      nodeID,
		cache:     cachev3.NewSnapshotCache(true, cachev3.IDHash{}, nil),
		server:    grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true})),
		resources: map[string]map[string]types.Resource{},
		check:     func(*authv3.CheckRequest) *authv3.CheckResponse { return nil },
	}
	callbacks := serverv3.CallbackFuncs{StreamDeltaRequestFunc: a.note}
	xds := serverv3.NewServer(t.Context(), a.cache, callbacks)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(a.server, xds)
	secretv3.RegisterSecretDiscoveryServiceServer(a.server, xds)
	authv3.RegisterAuthorizationServer(a.server, a)

	l, err := net.Listen("unix", a.Socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.server.Serve(l)
	}()
	t.Cleanup(func() {
		a.server.Stop()
		<-done
	})
	return a
}

// Stop ends the agent, as if it had been killed.
func (a *Agent) Stop() { a.server.Stop() }

// Set serves m under that type and name from now on.
func (a *Agent) Set(typeURL, name string, m proto.Message) {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.resources[typeURL] == nil {
		a.resources[typeURL] = map[string]types.Resource{}
	}
	a.resources[typeURL][name] = m
}

// Secret serves a secret from now on.
func (a *Agent) Secret(secret *tlsv3.Secret) {
	a.t.Helper()
	a.Set(resourcev3.SecretType, secret.GetName(), secret)
}

// Push sends what was set to Envoy.
func (a *Agent) Push() {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	all := map[string][]types.Resource{}
	for typeURL, byName := range a.resources {
		all[typeURL] = slices.Collect(maps.Values(byName))
	}
	snapshot, err := cachev3.NewSnapshot(strconv.Itoa(a.version), all)
	if err != nil {
		a.t.Fatal(err)
	}
	if err := a.cache.SetSnapshot(context.Background(), a.node, snapshot); err != nil {
		a.t.Fatal(err)
	}
}

// NACKs returns what Envoy rejected, in its words.
func (a *Agent) NACKs() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.nacks)
}

func (a *Agent) note(_ int64, r *discoveryv3.DeltaDiscoveryRequest) error {
	if r.GetErrorDetail() != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.nacks = append(a.nacks, r.GetTypeUrl()+": "+r.GetErrorDetail().GetMessage())
	}
	return nil
}

// Authorize makes decide answer all checks from now on. It is called by one
// request at a time.
func (a *Agent) Authorize(decide func(*authv3.CheckRequest) *authv3.CheckResponse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.check = decide
}

// Checks returns the checks so far.
func (a *Agent) Checks() []*authv3.CheckRequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.checks)
}

// Check implements the Authorization service.
func (a *Agent) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	a.deciding.Lock()
	defer a.deciding.Unlock()
	a.mu.Lock()
	a.checks = append(a.checks, r)
	check := a.check
	a.mu.Unlock()
	if response := check(r); response != nil {
		return response, nil
	}
	return Deny(403), nil
}
