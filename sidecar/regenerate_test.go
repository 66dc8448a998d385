package sidecar_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/envoytest"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/mesh"
)

var web = identity.ID{Role: identity.RoleService, Name: "web"}

// TestRealEnvoyMakesNewConnections revokes certificates of a service under load:
// first that of another instance, then the one in use.
func TestRealEnvoyMakesNewConnections(t *testing.T) {
	command := quietEnvoy(t)
	cp := newControlPlane(t, web)
	orders := newWorkload(t, cp, "orders")
	stock := newWorkload(t, cp, "stock")
	cp.set("rev-1", webView(t, orders, stock)...)
	cp.start()
	a := newAgent(t, cp)
	a.config.Identity = web
	a.config.EnvoyCommand = command
	a.config.Local.Inbound, a.config.Local.Outbound = freeAddress(t), freeAddress(t)
	a.start()
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	t.Cleanup(client.CloseIdleConnections)
	call := func(host, path string) (string, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.config.Local.Outbound.String()+path, nil)
		if err != nil {
			return "", err
		}
		req.Host = host
		resp, err := client.Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), errors.Join(err, is(resp.StatusCode, http.StatusOK))
	}
	for _, host := range []string{"orders", "stock"} {
		eventually(t, host+" answers", func() error { _, err := call(host, "/"); return err })
	}
	eventually(t, "rev-1 is acknowledged", acknowledged(cp, "rev-1"))

	slow := make(chan error, 1)
	go func() { _, err := call("orders", "/slow"); slow <- err }()
	eventually(t, "a request is under way", func() error { return is(orders.waiting(), 1) })
	old := orders.connections()
	oldStock := stock.connections()

	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var mu sync.Mutex
	var requests, failed int
	var underWay sync.RWMutex // read by whoever makes a request
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				underWay.RLock()
				_, err := call("orders", "/")
				underWay.RUnlock()
				mu.Lock()
				if requests++; err != nil {
					failed++
					t.Log(err)
				}
				mu.Unlock()
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	begin := time.Now()
	cp.revoke(cp.issue(orders.id))
	eventually(t, "a new connection", func() error {
		if peer, err := call("orders", "/"); err != nil || old[peer] {
			return fmt.Errorf("answered over %s, which is old: %v (%w)", peer, old[peer], err)
		}
		return nil
	})
	took := time.Since(begin)
	underWay.Lock()
	orders.forget() // from here on nothing may come on what was there before
	underWay.Unlock()
	time.Sleep(300 * time.Millisecond)
	for peer := range orders.connections() {
		if old[peer] {
			t.Error("a request came on a connection of the old generation")
		}
	}
	orders.release()
	if err := <-slow; err != nil {
		t.Errorf("the request that was under way: %v", err)
	}
	cp.revoke(cp.issue(orders.id))
	time.Sleep(300 * time.Millisecond)
	eventually(t, "there was load", func() error {
		mu.Lock()
		defer mu.Unlock()
		return is(requests >= 100, true)
	})
	stop()
	load.Wait()
	if failed > 0 {
		t.Errorf("%d of %d requests failed", failed, requests)
	}
	t.Logf("generation to an answer over a new connection: %v; %d requests, %d failed", took, requests, failed)
	if peer, err := call("stock", "/"); err != nil || !oldStock[peer] {
		t.Errorf("the other service's connection was not kept: %s, %v", peer, err)
	}
	eventually(t, "the revision is still acknowledged", acknowledged(cp, "rev-1"))

	begin = time.Now()
	cp.revoke(orders.svid)
	eventually(t, "the revoked instance is called no more", func() error {
		if _, err := call("orders", "/"); err == nil {
			return errors.New("it answered")
		}
		return nil
	})
	t.Logf("revocation to the first refusal: %v", time.Since(begin))
	orders.forget()
	for range 20 {
		if _, err := call("orders", "/"); err == nil {
			t.Fatal("a revoked instance was called")
		}
	}
	if n := len(orders.connections()); n > 0 {
		t.Errorf("requests came to the revoked instance over %d connections", n)
	}
	if _, err := call("stock", "/"); err != nil {
		t.Errorf("the other service: %v", err)
	}
}

// revoke revokes a certificate, and tells agents.
func (cp *controlPlane) revoke(svid *identity.SVID) {
	cp.t.Helper()
	_, err := cp.ca.RevokeSerial(svid.Serial(), "test")
	check(cp.t, err)
	cp.publishTrust()
}

// quietEnvoy returns a command that starts Envoy without its access log.
func quietEnvoy(t *testing.T) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "envoy")
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = --version ] || exec >/dev/null\nexec '%s' \"$@\"\n", envoytest.Path(t))
	check(t, os.WriteFile(path, []byte(script), 0o700))
	return []string{path, "--concurrency", "1", "--log-level", "error"}
}

// workload is a service's instance that tells callers their own address, over
// which of its connections they came.
type workload struct {
	name    string
	id      identity.ID
	svid    *identity.SVID
	address netip.AddrPort
	held    chan struct{}

	mu   sync.Mutex
	seen map[string]bool
	slow int
}

func newWorkload(t *testing.T, cp *controlPlane, name string) *workload {
	t.Helper()
	id := identity.ID{Role: identity.RoleService, Name: name}
	w := &workload{name: name, id: id, svid: cp.issue(id), held: make(chan struct{}), seen: map[string]bool{}}
	server := httptest.NewUnstartedServer(w)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{w.svid.TLSCertificate()},
		ClientAuth:   tls.RequireAnyClientCert,
		MinVersion:   tls.VersionTLS13,
	}
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	w.address = server.Listener.Addr().(*net.TCPAddr).AddrPort()
	return w
}

// ServeHTTP implements http.Handler.
func (w *workload) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.seen[r.RemoteAddr] = true
	if r.URL.Path == "/slow" {
		w.slow++
	}
	w.mu.Unlock()
	if r.URL.Path == "/slow" {
		<-w.held
	}
	_, _ = io.WriteString(rw, r.RemoteAddr)
}

// connections returns over which a request came.
func (w *workload) connections() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := map[string]bool{}
	for peer := range w.seen {
		seen[peer] = true
	}
	return seen
}

func (w *workload) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.seen)
}

func (w *workload) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.slow
}

func (w *workload) release() { close(w.held) }

// webView is the view of a service that uses others.
func webView(t *testing.T, uses ...*workload) []*xds.Resource {
	t.Helper()
	m := &mesh.Mesh{Name: "shop", TrustDomain: trustDomain}
	m.Certificates.Leaf = time.Hour // connections live for a quarter
	caller := &mesh.Service{Name: web.Name, MTLS: mesh.MTLSStrict}
	resources := []*xds.Resource{encode(t, web.String(), &chancerypb.Policy{Name: web.String(), TrustDomain: trustDomain})}
	for _, w := range uses {
		caller.Uses = append(caller.Uses, w.name)
		m.Services = append(m.Services, &mesh.Service{Name: w.name, MTLS: mesh.MTLSStrict, Routes: []mesh.Route{{
			Name: "all", Match: mesh.Match{Path: mesh.MustPattern("/**")}, Callers: []string{web.Name}, Timeout: time.Minute,
		}}})
	}
	m.Services = append(m.Services, caller)
	addresses := map[string]netip.AddrPort{}
	for _, w := range uses {
		addresses[envoy.EndpointsName(w.name)] = w.address
	}
	for _, r := range envoy.Sidecar(m, caller) {
		if c, ok := r.Message.(*clusterv3.Cluster); ok && c.GetEdsClusterConfig() != nil {
			name := c.GetEdsClusterConfig().GetServiceName()
			resources = append(resources, encode(t, name, assignment(name, addresses[name])))
			// Without its endpoints once more, a new cluster would wait that long, and
			// who tests it does not.
			c.GetEdsClusterConfig().GetEdsConfig().InitialFetchTimeout = durationpb.New(time.Minute)
		}
		resources = append(resources, encode(t, r.Name, r.Message))
	}
	return resources
}

func assignment(name string, address netip.AddrPort) proto.Message {
	return &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: address.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(address.Port())},
			}}},
		}}}},
	}}}
}
