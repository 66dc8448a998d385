package controlplane_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/internal/xdstest"
)

// held is what an agent holds, versions by name, by type.
type held map[string]map[string]string

// take applies a response.
func (h held) take(resp *discoveryv3.DeltaDiscoveryResponse) {
	if h[resp.GetTypeUrl()] == nil {
		h[resp.GetTypeUrl()] = map[string]string{}
	}
	for _, r := range resp.GetResources() {
		h[resp.GetTypeUrl()][r.GetName()] = r.GetVersion()
	}
	for _, name := range resp.GetRemovedResources() {
		delete(h[resp.GetTypeUrl()], name)
	}
}

// subscribeAll subscribes to the whole view as an agent does, with what it
// holds, and takes the answers.
func subscribeAll(c *xdstest.Client, h held) (got []string) {
	for _, typeURL := range viewTypes {
		c.Resume(typeURL, maps.Clone(h[typeURL]), "*")
	}
	for range viewTypes {
		resp := c.NextACK()
		h.take(resp)
		got = append(got, xdstest.Summary(resp)...)
	}
	slices.Sort(got)
	return got
}

// expect compares what is in a response.
func expect(t testing.TB, resp *discoveryv3.DeltaDiscoveryResponse, typeURL string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, xdstest.Summary(resp)); diff != "" || resp.GetTypeUrl() != typeURL {
		t.Errorf("response of %s (-want +got):\n%s", resp.GetTypeUrl(), diff)
	}
}

// decode returns the one resource of a response.
func decode(t testing.TB, resp *discoveryv3.DeltaDiscoveryResponse, m proto.Message) {
	t.Helper()
	if len(resp.GetResources()) != 1 {
		t.Fatalf("response has %d resources", len(resp.GetResources()))
	}
	if err := xds.FromDelta(resp.GetResources()[0]).Decode(m); err != nil {
		t.Fatal(err)
	}
}

func TestAgentGetsItsOwnView(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	tests := map[identity.ID][]string{
		gateway:   {"+gateway", "+gateway", "+gateway/public", "+orders", "+revision"},
		orders:    {"+chancery_application", "+inbound", "+inbound", "+inventory", "+outbound", "+outbound", "+revision", "+service/orders"},
		inventory: {"+chancery_application", "+inbound", "+inbound", "+outbound", "+outbound", "+revision", "+service/inventory"},
	}
	for id, want := range tests {
		if diff := cmp.Diff(want, subscribeAll(r.open(id), held{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", id, diff)
		}
	}
}

func TestNodeIsNotBelieved(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	c := r.open(inventory)
	c.Send(&discoveryv3.DeltaDiscoveryRequest{
		Node:                   &corev3.Node{Id: "gateway/public", Cluster: "public"},
		TypeUrl:                policyType,
		ResourceNamesSubscribe: []string{"*", "gateway/public", "service/orders", "service/inventory"},
	})
	expect(t, c.NextACK(), policyType, "+service/inventory", "-gateway/public", "-service/orders")
}

func TestSharedNamesOfOthersDoNotExist(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	c := r.open(gateway)
	c.Subscribe(resource.EndpointType, "orders", "inventory", "../orders", "*")
	expect(t, c.NextACK(), resource.EndpointType, "+orders", "-../orders", "-inventory")
	c.Subscribe(passportKeysType, "public")
	expect(t, c.NextACK(), passportKeysType, "-public")
	r.registry.tell("inventory", "127.0.0.1:1")
	c.Quiet(quiet)
}

// A name comes and goes with what the view refers to, while others use it all
// the time.
func TestSharedNamesFollowTheView(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	first := r.accept(gateway)
	c := r.open(gateway)
	c.Subscribe(resource.EndpointType, "inventory")
	expect(t, c.NextACK(), resource.EndpointType, "-inventory")
	r.write("inventory", strings.Replace(inventoryYAML, "[orders]", "[orders, public]", 1))
	expect(t, c.NextACK(), resource.EndpointType, "+inventory")
	second := r.revised(gateway, first)
	r.accept(gateway)

	r.write("inventory", inventoryYAML)
	r.revised(gateway, second)
	c.Quiet(quiet) // proxies on the proven revision still need it
	r.accept(gateway)
	expect(t, c.NextACK(), resource.EndpointType, "-inventory")
}

func TestUnservedTypesEndTheStream(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	for _, typeURL := range []string{"", resource.SecretType, "type.googleapis.com/envoy.Nonsense"} {
		c := r.open(orders)
		c.Subscribe(typeURL, "*")
		if err := c.Ended(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("type %q: stream ended with %v", typeURL, err)
		}
	}
}

func TestReconnectResendsNothing(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	h := held{}
	c := r.open(orders)
	subscribeAll(c, h)
	c.Close()
	for name, restart := range map[string]func(){
		"to the same control plane": func() {},
		"to a restarted one":        func() { r.stop(); r.start() },
	} {
		restart()
		c := r.open(orders)
		if got := subscribeAll(c, h); len(got) != 0 {
			t.Errorf("%s: sent %v", name, got)
		}
		c.Close()
	}
}

func TestRevisionSaysWhatTheSetsAre(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	h := held{}
	c := r.open(gateway)
	subscribeAll(c, h)
	before := r.view(gateway).Revision
	r.write("orders", withTimeout(ordersYAML, "7s"))
	r.revised(gateway, before)
	for {
		resp := c.NextACK()
		h.take(resp)
		if resp.GetTypeUrl() != revisionType {
			continue
		}
		var revision chancerypb.Revision
		decode(t, resp, &revision)
		for typeURL, digest := range revision.GetDigests() {
			if got := xds.DigestOf(h[typeURL]).String(); got != digest {
				t.Errorf("%s: digest %s, held %s", typeURL, digest, got)
			}
		}
		if len(revision.GetDigests()) != len(viewTypes)-1 || revision.GetId() != r.view(gateway).Revision {
			t.Errorf("revision %v", &revision)
		}
		return
	}
}

func TestOnlyWhatChangedIsSent(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	agents := map[identity.ID]*xdstest.Client{}
	for _, id := range []identity.ID{gateway, orders, inventory} {
		agents[id] = r.open(id)
		subscribeAll(agents[id], held{})
	}
	r.write("orders", withTimeout(ordersYAML, "7s"))
	var got []string
	for range 2 { // the routes, and the revision
		got = append(got, xdstest.Summary(agents[gateway].NextACK())...)
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"+gateway", "+revision"}, got); diff != "" {
		t.Errorf("gateway (-want +got):\n%s", diff)
	}
	agents[gateway].Quiet(quiet)
	agents[inventory].Quiet(quiet)
}

func TestRemovedDocumentEndsItsStreams(t *testing.T) {
	t.Parallel()
	docs := shop()
	docs["extra"] = "kind: Service\nname: extra\n"
	r := start(t, docs)
	extra := identity.ID{Role: identity.RoleService, Name: "extra"}
	conn := r.dial(extra)
	c := xdstest.Open(t, conn)
	subscribeAll(c, held{})
	other := r.open(orders)
	subscribeAll(other, held{})

	r.remove("extra")
	if err := c.Ended(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("stream ended with %v", err)
	}
	// The connection is still there; it is nobody's now.
	if err := xdstest.Open(t, conn).Ended(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a new stream ended with %v", err)
	}
	_, err := chancerypb.NewControlPlaneClient(conn).Report(t.Context(), &chancerypb.ReportRequest{})
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("Report: %v", err)
	}
	other.Quiet(quiet)
}

func TestStopEndsStreams(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	c := r.open(orders)
	subscribeAll(c, held{})
	r.stop()
	if err := c.Ended(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("stream ended with %v", err)
	}
}
