package sidecar_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/sidecar"
)

var public = identity.ID{Role: identity.RoleGateway, Name: "public"}

// agent is an agent under test that can be stopped and started again.
type agent struct {
	*sidecar.Agent

	t         *testing.T
	config    sidecar.Config
	probation time.Duration
	cancel    context.CancelFunc
	done      chan error
}

func newAgent(t *testing.T, cp *controlPlane) *agent {
	t.Helper()
	a := &agent{t: t, probation: 20 * time.Millisecond, config: sidecar.Config{
		Identity:     public,
		Instance:     "edge-1",
		ControlPlane: cp.address,
		Join:         sidecar.Join{Token: cp.token()},
		StateDir:     filepath.Join(socketDir(t), "state"),
		Logger:       slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
	t.Cleanup(a.stop)
	return a
}

// start starts the agent, as a new process would.
func (a *agent) start() {
	a.t.Helper()
	a.config.Registerer = prometheus.NewRegistry()
	var err error
	if a.Agent, err = sidecar.New(a.config); err != nil {
		a.t.Fatal(err)
	}
	a.SetProbation(a.probation)
	var ctx context.Context
	ctx, a.cancel = context.WithCancel(context.Background())
	a.done = make(chan error, 1)
	go func() { a.done <- a.Run(ctx) }()
}

func (a *agent) stop() {
	if a.cancel == nil {
		return
	}
	a.cancel()
	if err := <-a.done; err != nil {
		a.t.Errorf("Run: %v", err)
	}
	a.cancel = nil
}

func (a *agent) socket() string { return filepath.Join(a.config.StateDir, "envoy.sock") }

// knows asks the policy decision point without a token: on a route that it
// knows it demands one.
func (e *fakeEnvoy) knows(route string) int {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	resp, err := authv3.NewAuthorizationClient(e.conn).Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: map[string]string{envoy.ContextPolicy: public.String(), envoy.ContextRoute: route},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/" + route, Host: "shop.example",
			Headers: map[string]string{":method": "GET", ":path": "/" + route, ":authority": "shop.example"},
		}},
	}}, grpc.WaitForReady(true))
	if err != nil {
		return 0
	}
	return int(resp.GetDeniedResponse().GetStatus().GetCode())
}

const (
	known   = 401
	unknown = 503
)

// socketDir returns a directory whose path is short enough for a socket's.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// view is a gateway's view in which each of the services has a cluster and a
// route of its name.
func view(t *testing.T, services ...string) []*xds.Resource {
	t.Helper()
	policy := &chancerypb.Policy{
		Name:        public.String(),
		TrustDomain: trustDomain,
		Minting:     &chancerypb.Minting{Lifetime: durationpb.New(time.Minute)},
		Providers:   []*chancerypb.Provider{{Name: "staff", Issuer: "https://idp.example"}},
	}
	routes := &routev3.RouteConfiguration{Name: envoy.ListenerGateway}
	resources := []*xds.Resource{
		encode(t, envoy.ListenerGateway, &listenerv3.Listener{Name: envoy.ListenerGateway}),
		encode(t, "staff", &chancerypb.Provider{Name: "staff", Issuer: "https://idp.example"}),
	}
	for _, s := range services {
		resources = append(resources, cluster(t, s), endpoints(t, s, 1))
		routes.VirtualHosts = append(routes.VirtualHosts, &routev3.VirtualHost{Name: s})
		policy.Routes = append(policy.Routes, &chancerypb.RoutePolicy{Name: s, Path: "/" + s, Authentication: &chancerypb.Authentication{AnyOf: []*chancerypb.Credentials{{AccessToken: "staff"}}}})
	}
	return append(resources, encode(t, envoy.ListenerGateway, routes), encode(t, policy.GetName(), policy))
}

func cluster(t *testing.T, name string) *xds.Resource {
	t.Helper()
	return encode(t, name, &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{ServiceName: name},
	})
}

// endpoints differ by their priority.
func endpoints(t *testing.T, name string, priority uint32) *xds.Resource {
	t.Helper()
	return encode(t, name, &endpointv3.ClusterLoadAssignment{
		ClusterName: name,
		Endpoints:   []*endpointv3.LocalityLbEndpoints{{Priority: priority}},
	})
}
