package sidecar_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

// fakeEnvoy speaks delta ADS as Envoy does: clusters and listeners by
// wildcard, endpoints and routes by the names that those refer to. It holds
// what it acknowledged, also while it is disconnected.
type fakeEnvoy struct {
	t      *testing.T
	conn   *grpc.ClientConn
	cancel context.CancelFunc
	done   chan struct{}

	mu sync.Mutex
	// held are versions by name, by type.
	held map[string]map[string]string
	// events are "CDS +orders", "RDS -inbound" and so on, in order of arrival.
	events []string
	// reject says which resources to reject; hold delays the answers.
	reject func(name string) bool
	hold   chan struct{}
}

var shortTypes = map[string]string{
	resource.ClusterType: "CDS", resource.EndpointType: "EDS", resource.ListenerType: "LDS", resource.RouteType: "RDS",
}

func newFakeEnvoy(t *testing.T, socket string) *fakeEnvoy {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 5 * time.Millisecond, MaxDelay: 5 * time.Millisecond},
		}))
	if err != nil {
		t.Fatal(err)
	}
	e := &fakeEnvoy{t: t, conn: conn, held: map[string]map[string]string{}, reject: func(string) bool { return false }}
	for typeURL := range shortTypes {
		e.held[typeURL] = map[string]string{}
	}
	t.Cleanup(func() {
		e.disconnect()
		_ = conn.Close()
	})
	return e
}

// connect opens a stream, and another one whenever the agent ends it.
func (e *fakeEnvoy) connect() {
	e.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	e.cancel, e.done = cancel, make(chan struct{})
	go func() {
		defer close(e.done)
		for ctx.Err() == nil {
			_ = e.session(ctx) // ends with the agent or the test
			time.Sleep(10 * time.Millisecond)
		}
	}()
}

func (e *fakeEnvoy) disconnect() {
	if e.cancel != nil {
		e.cancel()
		<-e.done
	}
}

func (e *fakeEnvoy) session(ctx context.Context) error {
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(e.conn).DeltaAggregatedResources(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	e.event("connected")
	subscribed := map[string]bool{}
	subscribe := func(typeURL string, names ...string) error {
		first := !subscribed[typeURL]
		subscribed[typeURL] = true
		req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names, Node: &corev3.Node{Id: "envoy"}}
		if first {
			req.InitialResourceVersions = e.versions(typeURL)
		}
		return stream.Send(req)
	}
	for _, typeURL := range []string{resource.ClusterType, resource.ListenerType} {
		if err := subscribe(typeURL, "*"); err != nil {
			return err
		}
	}
	for _, typeURL := range []string{resource.EndpointType, resource.RouteType} {
		if names := slices.Sorted(maps.Keys(e.versions(typeURL))); len(names) > 0 {
			if err := subscribe(typeURL, names...); err != nil {
				return err
			}
		}
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		ack := e.take(ctx, resp)
		if err := stream.Send(ack); err != nil {
			return err
		}
		if ack.GetErrorDetail() != nil {
			continue
		}
		for typeURL, names := range referred(resp) {
			if err := subscribe(typeURL, names...); err != nil {
				return err
			}
		}
	}
}

// take acknowledges or rejects a response.
func (e *fakeEnvoy) take(ctx context.Context, resp *discoveryv3.DeltaDiscoveryResponse) *discoveryv3.DeltaDiscoveryRequest {
	short := shortTypes[resp.GetTypeUrl()]
	var rejected []string
	for _, r := range resp.GetResources() {
		e.event(short + " +" + r.GetName())
		if e.rejects(r.GetName()) {
			rejected = append(rejected, r.GetName())
		}
	}
	for _, name := range resp.GetRemovedResources() {
		e.event(short + " -" + name)
	}
	e.mu.Lock()
	hold := e.hold
	e.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
		}
	}
	ack := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()}
	if len(rejected) > 0 {
		ack.ErrorDetail = &statuspb.Status{Code: 13, Message: "bad: " + strings.Join(rejected, ", ")}
		return ack
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range resp.GetResources() {
		e.held[resp.GetTypeUrl()][r.GetName()] = r.GetVersion()
	}
	for _, name := range resp.GetRemovedResources() {
		delete(e.held[resp.GetTypeUrl()], name)
	}
	return ack
}

// referred returns the names that clusters and listeners refer to.
func referred(resp *discoveryv3.DeltaDiscoveryResponse) map[string][]string {
	names := map[string][]string{}
	for _, r := range resp.GetResources() {
		switch m, _ := r.GetResource().UnmarshalNew(); m := m.(type) {
		case *clusterv3.Cluster:
			if name := m.GetEdsClusterConfig().GetServiceName(); name != "" {
				names[resource.EndpointType] = append(names[resource.EndpointType], name)
			}
		case *listenerv3.Listener:
			names[resource.RouteType] = append(names[resource.RouteType], m.GetName())
		}
	}
	return names
}

func (e *fakeEnvoy) rejects(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reject(name)
}

func (e *fakeEnvoy) event(text string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.events = append(e.events, text)
}

// versions returns what is held of a type.
func (e *fakeEnvoy) versions(typeURL string) map[string]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.held[typeURL])
}

// names returns the names of what is held of all types, sorted.
func (e *fakeEnvoy) names() []string {
	var names []string
	for typeURL, short := range shortTypes {
		for name := range e.versions(typeURL) {
			names = append(names, short+" "+name)
		}
	}
	slices.Sort(names)
	return names
}

// history returns the events since the last call of forget.
func (e *fakeEnvoy) history() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.events)
}

func (e *fakeEnvoy) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.events = nil
}

// set changes how Envoy answers.
func (e *fakeEnvoy) set(f func(*fakeEnvoy)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(e)
}

// eventually waits until check has nothing to complain of.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// is compares, for eventually.
func is[T any](got, want T) error {
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		return fmt.Errorf("got %s, want %s", g, w)
	}
	return nil
}
