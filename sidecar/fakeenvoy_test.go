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

// fakeStream is one stream of a fakeEnvoy.
type fakeStream struct {
	*fakeEnvoy
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

	sending    sync.Mutex
	subscribed map[string]bool
}

func (e *fakeEnvoy) session(ctx context.Context) error {
	client, err := discoveryv3.NewAggregatedDiscoveryServiceClient(e.conn).DeltaAggregatedResources(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	e.event("connected")
	s := &fakeStream{fakeEnvoy: e, AggregatedDiscoveryService_DeltaAggregatedResourcesClient: client, subscribed: map[string]bool{}}
	s.subscribe(resource.ClusterType, "*")
	s.subscribe(resource.ListenerType, "*")
	for _, typeURL := range []string{resource.EndpointType, resource.RouteType} {
		if names := slices.Sorted(maps.Keys(e.versions(typeURL))); len(names) > 0 {
			s.subscribe(typeURL, names...)
		}
	}
	var answers sync.WaitGroup
	defer answers.Wait()
	for {
		resp, err := client.Recv()
		if err != nil {
			return err
		}
		e.note(resp)
		if hold := e.holding(); hold != nil {
			answers.Go(func() {
				select {
				case <-hold:
					s.answer(resp)
				case <-client.Context().Done():
				}
			})
			continue
		}
		s.answer(resp)
	}
}

// send sends, unless the stream has ended, which Recv tells.
func (s *fakeStream) send(req *discoveryv3.DeltaDiscoveryRequest) {
	s.sending.Lock()
	defer s.sending.Unlock()
	_ = s.Send(req)
}

func (s *fakeStream) subscribe(typeURL string, names ...string) {
	req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names, Node: &corev3.Node{Id: "envoy"}}
	s.sending.Lock()
	if !s.subscribed[typeURL] {
		req.InitialResourceVersions = s.versions(typeURL)
	}
	s.subscribed[typeURL] = true
	s.sending.Unlock()
	s.send(req)
}

// answer acknowledges or rejects a response.
func (s *fakeStream) answer(resp *discoveryv3.DeltaDiscoveryResponse) {
	ack := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()}
	if rejected := s.take(resp); len(rejected) > 0 {
		ack.ErrorDetail = &statuspb.Status{Code: 13, Message: "bad: " + strings.Join(rejected, ", ")}
		s.send(ack)
		return
	}
	s.send(ack)
	for typeURL, names := range referred(resp) {
		s.subscribe(typeURL, names...)
	}
}

// take holds what a response has, or else returns what it does not like.
func (e *fakeEnvoy) take(resp *discoveryv3.DeltaDiscoveryResponse) (rejected []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range resp.GetResources() {
		if e.reject(r.GetName()) {
			rejected = append(rejected, r.GetName())
		}
	}
	if len(rejected) > 0 {
		return rejected
	}
	for _, r := range resp.GetResources() {
		e.held[resp.GetTypeUrl()][r.GetName()] = r.GetVersion()
	}
	for _, name := range resp.GetRemovedResources() {
		delete(e.held[resp.GetTypeUrl()], name)
	}
	return nil
}

// note enters a response into the history.
func (e *fakeEnvoy) note(resp *discoveryv3.DeltaDiscoveryResponse) {
	short := shortTypes[resp.GetTypeUrl()]
	for _, r := range resp.GetResources() {
		e.event(short + " +" + r.GetName())
	}
	for _, name := range resp.GetRemovedResources() {
		e.event(short + " -" + name)
	}
}

func (e *fakeEnvoy) holding() chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.hold
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
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
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
