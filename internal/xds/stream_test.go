package xds_test

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/internal/xdstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var typeURL = xds.TypeURL(&wrapperspb.StringValue{})

// quiet is how long nothing must come for a test to believe that nothing will.
const quiet = 50 * time.Millisecond

func resource(t *testing.T, name, content string) *xds.Resource {
	t.Helper()
	r, err := xds.New(name, wrapperspb.String(content))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// server serves one collection to everybody.
type server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	collection xds.Collection
	allow      func(string) bool
}

func (s *server) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return xds.Serve(stream.Context(), stream, s, s)
}

func (s *server) Collection(asked string) (*xds.Collection, func(string) bool, error) {
	if asked != typeURL {
		return nil, nil, fmt.Errorf("type %q is not served", asked)
	}
	return &s.collection, s.allow, nil
}

func (s *server) Requested(req *discoveryv3.DeltaDiscoveryRequest) error {
	if req.GetNode().GetId() == "unwanted" {
		return status.Error(codes.PermissionDenied, "go away")
	}
	return nil
}

func (s *server) Responding(*discoveryv3.DeltaDiscoveryResponse) {}

// open serves s and opens a stream to it.
func open(t *testing.T, s *server) *xdstest.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return xdstest.Open(t, xdstest.Dial(t, "unix:"+path))
}

func expect(t *testing.T, resp *discoveryv3.DeltaDiscoveryResponse, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, xdstest.Summary(resp)); diff != "" {
		t.Errorf("response (-want +got):\n%s", diff)
	}
}

func TestWildcard(t *testing.T) {
	t.Parallel()
	s := &server{}
	s.collection.Replace([]*xds.Resource{resource(t, "a", "1"), resource(t, "b", "1")})
	c := open(t, s)
	c.Subscribe(typeURL, "*")
	expect(t, c.NextACK(), "+a", "+b")
	c.Quiet(quiet)

	s.collection.Apply([]*xds.Resource{resource(t, "a", "1"), resource(t, "b", "2"), resource(t, "c", "1")})
	expect(t, c.NextACK(), "+b", "+c")
	s.collection.Replace([]*xds.Resource{resource(t, "c", "1")})
	expect(t, c.NextACK(), "-a", "-b")
	s.collection.Apply(nil, "never", "there")
	c.Quiet(quiet)
}

func TestChangesBetweenACKsArriveTogether(t *testing.T) {
	t.Parallel()
	s := &server{}
	c := open(t, s)
	c.Subscribe(typeURL, "*")
	first := c.Next()
	expect(t, first)
	for i := range 10 {
		s.collection.Apply([]*xds.Resource{resource(t, "a", strconv.Itoa(i)), resource(t, "b", "1")})
	}
	s.collection.Apply(nil, "b")
	c.ACK(first)
	expect(t, c.NextACK(), "+a")
	c.Quiet(quiet)
}

func TestNames(t *testing.T) {
	t.Parallel()
	s := &server{}
	s.collection.Apply([]*xds.Resource{resource(t, "a", "1"), resource(t, "b", "1")})
	c := open(t, s)
	c.Subscribe(typeURL, "a", "missing")
	expect(t, c.NextACK(), "+a", "-missing")
	c.Quiet(quiet)

	s.collection.Apply([]*xds.Resource{resource(t, "missing", "1"), resource(t, "b", "2")})
	expect(t, c.NextACK(), "+missing")
	c.Subscribe(typeURL, "b")
	expect(t, c.NextACK(), "+b")
	c.Unsubscribe(typeURL, "a")
	expect(t, c.NextACK())
	s.collection.Apply([]*xds.Resource{resource(t, "a", "2")})
	c.Quiet(quiet)
	c.Subscribe(typeURL, "b")
	expect(t, c.NextACK(), "+b") // asked for again, so sent again
}

func TestResume(t *testing.T) {
	t.Parallel()
	a, b := resource(t, "a", "1"), resource(t, "b", "1")
	held := map[string]string{"a": a.Version, "b": b.Version}
	tests := map[string]struct {
		now   []*xds.Resource
		names []string
		want  []string
	}{
		"nothing changed":          {[]*xds.Resource{a, b}, []string{"*"}, nil},
		"by name, nothing changed": {[]*xds.Resource{a, b}, []string{"a", "b"}, nil},
		"one changed":              {[]*xds.Resource{a, resource(t, "b", "2")}, []string{"*"}, []string{"+b"}},
		"one is gone":              {[]*xds.Resource{a}, []string{"*"}, []string{"-b"}},
		"by name, one is gone":     {[]*xds.Resource{a}, []string{"a", "b"}, []string{"-b"}},
		"one is new":               {[]*xds.Resource{a, b, resource(t, "c", "1")}, []string{"*"}, []string{"+c"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &server{}
			s.collection.Replace(tt.now)
			c := open(t, s)
			c.Resume(typeURL, held, tt.names...)
			expect(t, c.NextACK(), tt.want...)
			c.Quiet(quiet)
		})
	}
}

func TestAllow(t *testing.T) {
	t.Parallel()
	var allowed []string
	s := &server{}
	s.allow = func(name string) bool { return slices.Contains(allowed, name) }
	s.collection.Apply([]*xds.Resource{resource(t, "mine", "1"), resource(t, "other", "1")})
	allowed = []string{"mine"}
	c := open(t, s)
	c.Resume(typeURL, map[string]string{"other": "guessed"}, "*", "mine", "other", "../mine")
	expect(t, c.NextACK(), "+mine", "-../mine", "-other")
	s.collection.Apply([]*xds.Resource{resource(t, "other", "2")})
	c.Quiet(quiet)
}

func TestRecheck(t *testing.T) {
	t.Parallel()
	allowed := make(chan bool, 1) // a lock that holds a value
	allowed <- false
	s := &server{}
	s.allow = func(string) bool { v := <-allowed; allowed <- v; return v }
	s.collection.Apply([]*xds.Resource{resource(t, "a", "1")})
	c := open(t, s)
	c.Subscribe(typeURL, "a")
	expect(t, c.NextACK(), "-a")
	c.Quiet(quiet)
	for _, step := range []struct {
		allowed bool
		want    string
	}{{true, "+a"}, {false, "-a"}} {
		<-allowed
		allowed <- step.allowed
		s.collection.Recheck("a", "b")
		expect(t, c.NextACK(), step.want)
		c.Quiet(quiet)
	}
}

func TestNACKIsNotAnsweredWithTheSameAgain(t *testing.T) {
	t.Parallel()
	s := &server{}
	s.collection.Apply([]*xds.Resource{resource(t, "a", "bad")})
	c := open(t, s)
	c.Subscribe(typeURL, "*")
	c.NACK(c.Next(), "no")
	c.Quiet(quiet)
	s.collection.Apply([]*xds.Resource{resource(t, "a", "good")})
	expect(t, c.NextACK(), "+a")
}

func TestStreamEnds(t *testing.T) {
	t.Parallel()
	many := make(map[string]string, 10_001)
	names := make([]string, 0, 10_001)
	for i := range 10_001 {
		names = append(names, strconv.Itoa(i))
		many[names[i]] = "v"
	}
	tests := map[string]struct {
		req  *discoveryv3.DeltaDiscoveryRequest
		want codes.Code
	}{
		"without a type":       {&discoveryv3.DeltaDiscoveryRequest{}, codes.InvalidArgument},
		"on an unknown type":   {&discoveryv3.DeltaDiscoveryRequest{TypeUrl: "type.googleapis.com/x"}, codes.InvalidArgument},
		"on too many names":    {&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names}, codes.ResourceExhausted},
		"on too many versions": {&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, InitialResourceVersions: many}, codes.ResourceExhausted},
		"on a long name": {&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: typeURL, ResourceNamesSubscribe: []string{strings.Repeat("a", 513)},
		}, codes.InvalidArgument},
		"on a long version": {&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: typeURL, InitialResourceVersions: map[string]string{"a": strings.Repeat("v", 513)},
		}, codes.InvalidArgument},
		"when the observer says so": {&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, Node: &corev3.Node{Id: "unwanted"}}, codes.PermissionDenied},
		"on a message over 4 MiB": {&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, Node: &corev3.Node{
			Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
				"x": structpb.NewStringValue(string(make([]byte, 4<<20))),
			}},
		}}, codes.ResourceExhausted},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := open(t, &server{})
			c.Send(tt.req)
			if err := c.Ended(); status.Code(err) != tt.want {
				t.Errorf("stream ended with %v, want %v", err, tt.want)
			}
		})
	}
}

// Whatever nonces, unsubscriptions and errors come, the server answers what is
// asked and survives.
func TestOddRequests(t *testing.T) {
	t.Parallel()
	s := &server{}
	s.collection.Apply([]*xds.Resource{resource(t, "a", "1")})
	c := open(t, s)
	c.Unsubscribe(typeURL, "never", "*")
	c.Next() // an empty first request is a wildcard
	c.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: "from the past"})
	c.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: "99", ResourceNamesSubscribe: []string{"a", "a", "*", ""}})
	var got []string
	for !slices.Contains(got, "+a") {
		got = append(got, xdstest.Summary(c.NextACK())...)
	}
	s.collection.Apply([]*xds.Resource{resource(t, "a", "2")})
	for !slices.Equal(got, []string{"+a"}) {
		got = xdstest.Summary(c.NextACK())
	}
}
