package controlplane_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/xdstest"
)

func TestOddNodesAndTypesEndTheStream(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	ask := func(node *corev3.Node, typeURL string) *discoveryv3.DeltaDiscoveryRequest {
		return &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: typeURL, ResourceNamesSubscribe: []string{"*"}}
	}
	good := &corev3.Node{Id: "1", Cluster: "orders"}
	tests := map[string]struct {
		requests []*discoveryv3.DeltaDiscoveryRequest
		want     codes.Code
	}{
		"no node":                {requests(ask(nil, policyType)), codes.InvalidArgument},
		"a long id":              {requests(ask(&corev3.Node{Id: strings.Repeat("a", 257)}, policyType)), codes.InvalidArgument},
		"a long cluster":         {requests(ask(&corev3.Node{Cluster: strings.Repeat("a", 257)}, policyType)), codes.InvalidArgument},
		"a line in the id":       {requests(ask(&corev3.Node{Id: "1\n2"}, policyType)), codes.InvalidArgument},
		"NUL in the id":          {requests(ask(&corev3.Node{Id: "1\x00"}, policyType)), codes.InvalidArgument},
		"an escape in the id":    {requests(ask(&corev3.Node{Id: "\x1b[2J"}, policyType)), codes.InvalidArgument},
		"C1 controls in the id":  {requests(ask(&corev3.Node{Id: "\u009b2J"}, policyType)), codes.InvalidArgument},
		"metadata over 64 KiB":   {requests(ask(&corev3.Node{Metadata: wide(t, 10_000)}, policyType)), codes.InvalidArgument},
		"deep metadata":          {requests(ask(&corev3.Node{Metadata: deep(9_000)}, policyType)), codes.InvalidArgument},
		"a million keys":         {requests(ask(&corev3.Node{Metadata: wide(t, 1_000_000)}, policyType)), codes.ResourceExhausted},
		"another id later":       {requests(ask(good, policyType), ask(&corev3.Node{Id: "2", Cluster: "orders"}, revisionType)), codes.InvalidArgument},
		"another cluster later":  {requests(ask(good, policyType), ask(&corev3.Node{Id: "1", Cluster: "public"}, revisionType)), codes.InvalidArgument},
		"no type":                {requests(ask(good, "")), codes.InvalidArgument},
		"an unknown type":        {requests(ask(good, "type.googleapis.com/x.Y")), codes.InvalidArgument},
		"a type of a megabyte":   {requests(ask(good, strings.Repeat("t", 1<<20))), codes.InvalidArgument},
		"a later type like that": {requests(ask(good, policyType), ask(nil, strings.Repeat("t", 1<<20))), codes.InvalidArgument},
		"a request over 4 MiB":   {requests(ask(good, strings.Repeat("t", 5<<20))), codes.ResourceExhausted},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := r.with(t).open(orders)
			for _, req := range tt.requests {
				c.SendAsIs(req)
			}
			if err := c.Ended(); status.Code(err) != tt.want || len(err.Error()) > 1000 {
				t.Errorf("stream ended with %.1000v, want %v", err, tt.want)
			}
		})
	}
	t.Run("the same again", func(t *testing.T) {
		t.Parallel()
		c := r.with(t).open(orders)
		for _, typeURL := range viewTypes {
			c.SendAsIs(ask(good, typeURL))
			c.NextACK()
		}
	})
}

func requests(all ...*discoveryv3.DeltaDiscoveryRequest) []*discoveryv3.DeltaDiscoveryRequest {
	return all
}

// wide is metadata with many keys.
func wide(t *testing.T, n int) *structpb.Struct {
	t.Helper()
	s := &structpb.Struct{Fields: make(map[string]*structpb.Value, n)}
	for i := range n {
		s.Fields[fmt.Sprintf("key-%d", i)] = structpb.NewNullValue()
	}
	return s
}

// deep is metadata inside metadata.
func deep(n int) *structpb.Struct {
	v := structpb.NewNullValue()
	for range n / 2 {
		v = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{v}})
	}
	return &structpb.Struct{Fields: map[string]*structpb.Value{"a": v, "b": structpb.NewStringValue(strings.Repeat("b", 64<<10))}}
}

// Two agents that call themselves the same are two, each with its own view.
func TestTwoNodesOfOneName(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	node := &corev3.Node{Id: "twin"}
	for id, want := range map[identity.ID]string{orders: "+service/orders", inventory: "+service/inventory"} {
		c := r.open(id)
		c.SendAsIs(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: policyType})
		expect(t, c.NextACK(), policyType, want)
	}
	if n := len(controlplane.Proxies(r.server)); n != 2 {
		t.Errorf("%d proxies", n)
	}
}

func TestFloodsOfNames(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	c := r.open(orders)
	c.Subscribe(policyType, slices.Repeat([]string{"service/orders"}, 100_000)...)
	expect(t, c.NextACK(), policyType, "+service/orders")
	for range 10 {
		c.Unsubscribe(policyType, "never", "there", "service/inventory")
		c.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: policyType, ResponseNonce: "from the past"})
	}
	for resp := range c.Until(quiet) {
		expect(t, resp, policyType)
		c.ACK(resp)
	}
	c.Subscribe(policyType, "*", "service/orders") // both: once
	expect(t, c.NextACK(), policyType, "+service/orders")

	many := map[string]string{}
	for i := range 100_000 {
		many[fmt.Sprint(i)] = "v"
	}
	c.Resume(revisionType, many, "*")
	if err := c.Ended(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a hundred thousand versions: %v", err)
	}
}

// A client that rejects everything is sent what is new, then what was good
// before, and nothing more; if it goes on, it is not listened to for a while.
func TestNACKLoop(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.accept(orders)
	c := r.open(orders)
	c.Subscribe(policyType, "*")
	last := c.Next()
	c.NACK(last, "no")
	c.Quiet(quiet)
	for i := range 5 {
		r.write("orders", strings.Replace(ordersYAML, "path: /orders", fmt.Sprint("path: /orders-", i), 1))
		last = c.Next()
		c.NACK(last, "no")
		sent := 1
		for last = range c.Until(quiet) {
			c.NACK(last, "no")
			sent++
		}
		if sent != 2 {
			t.Errorf("change %d was sent %d times", i, sent)
		}
	}
	for range 200 {
		c.NACK(last, "no")
	}
	if err := c.Ended(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("stream ended with %v", err)
	}
}

// Who asks and does not read is dropped; others notice nothing.
func TestSlowReaderIsDropped(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.svid(orders)
	controlplane.Bound(r.server, func(b *controlplane.Bounds) { b.Slow(300 * time.Millisecond) })
	other := r.open(gateway)
	subscribeAll(other, held{})
	slow := r.open(orders)
	before := heap()
	for i := range 20_000 {
		if slow.Failed() {
			break
		}
		slow.Subscribe(policyType, "service/orders", fmt.Sprint("none", i%100))
	}
	r.until("it is dropped", func() bool { return r.log.has("its agent does not read") })
	if err := slow.Ended(); status.Code(err) != codes.Unavailable {
		t.Errorf("stream ended with %v", err)
	}
	if grown := int64(heap()) - int64(before); grown > 20<<20 {
		t.Errorf("%d bytes more in use", grown)
	}
	other.Quiet(quiet)
	r.write("orders", withTimeout(ordersYAML, "7s"))
	other.NextACK()
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestStormOfConnections(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	svid := r.svid(orders)
	controlplane.Bound(r.server, func(b *controlplane.Bounds) { b.Handshakes(100, 10) })
	began := time.Now()
	var agents sync.WaitGroup
	for range 60 {
		agents.Go(func() {
			c := xdstest.Open(t, r.dialWith(svid))
			c.Subscribe(policyType, "*")
			c.NextACK()
		})
	}
	agents.Wait()
	if took := time.Since(began); took < 400*time.Millisecond {
		t.Errorf("60 handshakes in %v, but 100 are allowed in a second", took)
	}
}

func TestFlappingStreamsAreBounded(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	conn := r.dial(orders)
	for i := range 1000 {
		c := xdstest.Open(t, conn)
		c.Subscribe(policyType, "*")
		var refused error
		for range c.Until(50 * time.Millisecond) {
			break
		}
		c.Close()
		if refused = c.Ended(); status.Code(refused) == codes.ResourceExhausted {
			if i < 50 {
				t.Errorf("only %d streams", i)
			}
			subscribeAll(r.open(orders), held{}) // on another connection
			return
		}
	}
	t.Error("a thousand streams in a row")
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		bound func(*controlplane.Bounds)
		as    func(*rig) *identity.SVID
	}{
		"in all":                {func(b *controlplane.Bounds) { b.Connections(3) }, func(r *rig) *identity.SVID { return r.svid(orders) }},
		"of a workload":         {func(b *controlplane.Bounds) { b.PerWorkload(3) }, func(r *rig) *identity.SVID { return r.svid(orders) }},
		"of an agent":           {func(b *controlplane.Bounds) { b.PerAgent(3) }, (*rig).renewed},
		"without a certificate": {func(b *controlplane.Bounds) { b.PerAddress(3) }, func(*rig) *identity.SVID { return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, shop())
			r.svid(orders)
			controlplane.Bound(r.server, tt.bound)
			for range 3 {
				_ = report(t.Context(), r.dialWith(tt.as(r)))
			}
			conn := r.failing(identity.ClientCredentials(source{tt.as(r), r.trust()}))
			if err := report(t.Context(), conn); status.Code(err) != codes.Unavailable {
				t.Errorf("one more: %v", err)
			}
			if got := r.metric("chancery_connections"); got != 3 {
				t.Errorf("%v connections", got)
			}
		})
	}
}

// renewed returns another certificate of one agent each time.
func (r *rig) renewed() *identity.SVID {
	r.t.Helper()
	authority := controlplane.Authority(r.server)
	first, _ := authority.Find(r.svid(orders).Serial())
	return r.signed(ca.Request{ID: orders, TTL: time.Hour, Lineage: first.Lineage, Parent: first.Serial})
}

// Whoever connects and says nothing holds back nobody, whatever they use up.
func TestSilentConnectionsHoldBackNobody(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.svid(orders)
	controlplane.Bound(r.server, func(b *controlplane.Bounds) {
		b.Connections(1)
		b.Handshakes(1, 1)
		b.ArrivingPerAddress(20)
	})
	silent := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	var conns []net.Conn
	for range 30 {
		c, err := silent.DialContext(t.Context(), "tcp", r.server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	r.until("those that are too many are refused", func() bool { return r.metric("chancery_connections_refused_total") == 10 })
	if err := report(t.Context(), r.dialWith(r.svid(orders))); err != nil {
		t.Error(err)
	}
	// It went ahead of them, and not after they were given up.
	r.until("20 silent connections are left", func() bool {
		left := 0
		for _, c := range conns {
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
				left++
			}
		}
		return left == 20
	})
}

// A few agents' keys do not take the place of all others of their workload.
func TestStolenKeysTakeFewPlaces(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.svid(orders)
	controlplane.Bound(r.server, func(b *controlplane.Bounds) { b.PerAgent(controlplane.PerAgent) })
	first, second := r.renewed(), r.renewed()
	for range controlplane.PerAgent / 2 {
		for _, svid := range []*identity.SVID{first, second} {
			if err := report(t.Context(), r.dialWith(svid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := report(t.Context(), r.failing(identity.ClientCredentials(source{r.renewed(), r.trust()}))); status.Code(err) != codes.Unavailable {
		t.Errorf("one more: %v", err)
	}
	if err := report(t.Context(), r.dialWith(r.newSVID(orders))); err != nil {
		t.Errorf("another agent: %v", err)
	}
}
