package sidecar_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/envoytest"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/sidecar"
)

func TestRealEnvoy(t *testing.T) {
	path := envoytest.Path(t)
	cp := newControlPlane(t, public)
	cp.set("rev-1", realView(t, "one")...)
	cp.start()
	a := newAgent(t, cp)
	a.config.EnvoyCommand = []string{path, "--concurrency", "1", "--log-level", "error"}
	a.config.Local.Inbound = freeAddress(t)
	a.config.DrainTime = time.Second
	begin := time.Now()
	a.start()
	eventually(t, "Envoy answers", answers(a, "one"))
	t.Logf("nothing to an answer: %v", time.Since(begin))
	eventually(t, "ready", a.Ready)
	if err := sidecar.CheckEnvoyVersion(a.Status().EnvoyVersion); err != nil {
		t.Error(err)
	}

	begin = time.Now()
	cp.set("rev-2", realView(t, "two")...)
	eventually(t, "Envoy takes a change", answers(a, "two"))
	t.Logf("change to an answer by it: %v", time.Since(begin))
	eventually(t, "the change is acknowledged", acknowledged(cp, "rev-2"))

	// Envoy does not ask again for endpoints that it has, which would hold the
	// changed cluster up.
	changed := realView(t, "three")
	for i, r := range changed {
		if r.Name == "three" {
			changed[i] = encode(t, "two", realCluster(t, "two", time.Minute))
			break
		}
	}
	begin = time.Now()
	cp.set("rev-3", append(changed, endpoints(t, "two", 0))...)
	eventually(t, "Envoy takes a changed cluster", answers(a, "three"))
	t.Logf("changed cluster to an answer after it: %v", time.Since(begin))

	cp.stop()
	pid := a.pid()
	begin = time.Now()
	check(t, syscall.Kill(pid, syscall.SIGKILL))
	eventually(t, "Envoy is gone", func() error { return is(alive(pid), false) })
	eventually(t, "Envoy answers again without the control plane", answers(a, "three"))
	t.Logf("killed to an answer: %v", time.Since(begin))

	c, err := net.Dial("tcp", a.config.Local.Inbound.String())
	check(t, err)
	defer c.Close()
	pid, begin = a.pid(), time.Now()
	a.stop()
	const killAfter = 5 * time.Second // of one that does not end by itself
	if took := time.Since(begin); took < a.config.DrainTime || took >= a.config.DrainTime+killAfter {
		t.Errorf("with a connection open, Envoy ended after %v, not after the drain time", took)
	}
	if alive(pid) {
		t.Error("Envoy outlived the agent's orderly end")
	}
}

func TestRealEnvoyIsFoundByItsAdminInterface(t *testing.T) {
	t.Parallel()
	path := envoytest.Path(t)
	a := newAgent(t, newControlPlane(t, public))
	a.config.EnvoyCommand = []string{path}
	a.config.DrainTime = time.Second
	bootstrap, err := a.config.Bootstrap()
	check(t, err)
	check(t, os.MkdirAll(a.config.StateDir, 0o700))
	file := filepath.Join(a.config.StateDir, "bootstrap.yaml")
	check(t, os.WriteFile(file, bootstrap, 0o600))
	cmd := exec.CommandContext(t.Context(), path, "-c", file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
	check(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	eventually(t, "Envoy's admin interface answers", func() error {
		c, err := net.Dial("unix", filepath.Join(a.config.StateDir, "admin.sock"))
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	a.start()
	eventually(t, "Envoy is found", func() error {
		return errors.Join(is(a.pid(), cmd.Process.Pid), is(a.Status().EnvoyConnected, true))
	})
	a.stop()
	if err := <-ended; err != nil {
		t.Errorf("Envoy did not end by itself: %v", err)
	}
}

func freeAddress(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	check(t, l.Close())
	return netip.MustParseAddrPort(l.Addr().String())
}

// answers reports whether Envoy's listener says what it should.
func answers(a *agent, want string) func() error {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	return func() error {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+a.config.Local.Inbound.String(), nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return errors.Join(err, is(string(body), want))
	}
}

// realView is a view whose listener answers with text, and whose one cluster
// needs endpoints and the secrets.
func realView(t *testing.T, text string) []*xds.Resource {
	t.Helper()
	manager := &hcmv3.HttpConnectionManager{
		StatPrefix: "gateway",
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{
			Rds: &hcmv3.Rds{RouteConfigName: envoy.ListenerGateway, ConfigSource: adsSource()},
		},
		HttpFilters: []*hcmv3.HttpFilter{{
			Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: typed(t, &routerv3.Router{})},
		}},
	}
	listener := &listenerv3.Listener{
		Name: envoy.ListenerGateway,
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name: "http", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: typed(t, manager)},
		}}}},
	}
	routes := &routev3.RouteConfiguration{
		Name: envoy.ListenerGateway,
		VirtualHosts: []*routev3.VirtualHost{{
			Name: "all", Domains: []string{"*"},
			Routes: []*routev3.Route{{
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
					Status: 200,
					Body:   &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: text}},
				}},
			}},
		}},
	}
	resources := view(t)
	for i, r := range resources {
		if r.Name == envoy.ListenerGateway {
			m := map[string]proto.Message{xds.TypeURL(listener): listener, xds.TypeURL(routes): routes}[r.TypeURL]
			resources[i] = encode(t, r.Name, m)
		}
	}
	return append(resources, encode(t, text, realCluster(t, text, time.Second)), endpoints(t, text, 0))
}

func realCluster(t *testing.T, name string, connectTimeout time.Duration) *clusterv3.Cluster {
	t.Helper()
	ads := adsSource()
	ads.InitialFetchTimeout = durationpb.New(time.Minute) // nobody tests as long
	sds := &corev3.ConfigSource{
		ResourceApiVersion: corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
			ApiType:             corev3.ApiConfigSource_DELTA_GRPC,
			TransportApiVersion: corev3.ApiVersion_V3,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: envoy.ClusterSDS},
			}}},
		}},
	}
	tls := &tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: envoy.SecretSVID, SdsConfig: sds}},
		ValidationContextType: &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
			ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: envoy.SecretBundle, SdsConfig: sds},
		},
	}}
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{ServiceName: name, EdsConfig: ads},
		ConnectTimeout:       durationpb.New(connectTimeout),
		TransportSocket: &corev3.TransportSocket{
			Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: typed(t, tls)},
		},
	}
}

func adsSource() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}
}

func typed(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	packed, err := anypb.New(m)
	check(t, err)
	return packed
}
