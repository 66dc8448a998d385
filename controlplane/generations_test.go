package controlplane_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xdstest"
)

// revisionOf returns the revision that a new stream is given.
func revisionOf(t *testing.T, c *xdstest.Client) string {
	t.Helper()
	c.Subscribe(revisionType, "*")
	return nextRevision(t, c)
}

func nextRevision(t *testing.T, c *xdstest.Client) string {
	t.Helper()
	var revision chancerypb.Revision
	decode(t, c.NextACK(), &revision)
	return revision.GetId()
}

func TestNewProxiesGetWhatSomebodyAcknowledged(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	first := r.accept(gateway)
	tester := r.open(gateway)
	if got := revisionOf(t, tester); got != first {
		t.Fatalf("first revision is %s, want %s", got, first)
	}
	r.write("orders", withTimeout(ordersYAML, "7s"))
	second := r.revised(gateway, first)
	if got := nextRevision(t, tester); got != second {
		t.Errorf("who is there already is told of %s, want %s", got, second)
	}
	late := r.open(gateway)
	if got := revisionOf(t, late); got != first {
		t.Errorf("a new proxy is given %s, want the proven %s", got, first)
	}
	late.Quiet(quiet)
	if s := r.view(gateway); s.Proven != first || s.Revision != second {
		t.Errorf("status %+v", s)
	}

	r.accept(gateway)
	if err := late.Ended(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream on the old revision ended with %v", err)
	}
	if got := revisionOf(t, r.open(gateway)); got != second {
		t.Errorf("a new proxy is given %s, want %s", got, second)
	}
	tester.Quiet(quiet)
}

func TestSomebodyMustTry(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	first := r.accept(gateway)
	r.write("orders", withTimeout(ordersYAML, "7s"))
	second := r.revised(gateway, first)

	tester := r.open(gateway)
	if got := revisionOf(t, tester); got != second {
		t.Errorf("the only proxy is given %s, want the latest, %s", got, second)
	}
	late := r.open(gateway)
	if got := revisionOf(t, late); got != first {
		t.Errorf("the next proxy is given %s, want the proven %s", got, first)
	}
	tester.Close()
	if err := late.Ended(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream that shall try ended with %v", err)
	}
	if got := revisionOf(t, r.open(gateway)); got != second {
		t.Errorf("it is then given %s, want %s", got, second)
	}
}

func TestTakenBackChangeIsProven(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	first := r.accept(gateway)
	tester := r.open(gateway)
	revisionOf(t, tester)
	r.write("orders", withTimeout(ordersYAML, "7s"))
	second := r.revised(gateway, first)
	late := r.open(gateway)
	revisionOf(t, late)
	r.write("orders", ordersYAML)
	if got := r.revised(gateway, second); got != first {
		t.Errorf("revision %s, want %s again", got, first)
	}
	if err := late.Ended(); status.Code(err) != codes.Unavailable {
		t.Errorf("stream ended with %v", err)
	}
	if s := r.view(gateway); s.Proven != first {
		t.Errorf("status %+v", s)
	}
}

// routeConfig is the name of the gateway's one route configuration.
const routeConfig = "gateway"

func TestRejectedDocumentIsQuarantined(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	first, sidecars := r.accept(gateway), r.accept(inventory)
	tester := r.open(gateway)
	revisionOf(t, tester)

	// Two documents change, and one of them is bad.
	r.write("inventory", strings.Replace(withTimeout(inventoryYAML, "9s"), "[orders]", "[orders, public]", 1))
	r.revised(inventory, sidecars)
	r.write("orders", withTimeout(ordersYAML, "7s"))
	r.until("both are in the revision", func() bool { return len(r.view(orders).Revision) > 0 && r.log.count("documents served") == 3 })
	second := r.view(gateway).Revision
	r.reject(gateway, resource.RouteType, `Error adding/updating route "orders/list": no`, routeConfig)

	third := r.revised(gateway, second)
	if third == first {
		t.Error("the good document was taken back too")
	}
	s := r.status()
	if len(s.Quarantine) != 1 || s.Quarantine[0].Document != "Service/orders" || !s.Quarantine[0].Previous ||
		s.Quarantine[0].Proxy != "gateway/public/1" || !strings.Contains(s.Quarantine[0].Reason, "orders/list") {
		t.Errorf("quarantine %+v", s.Quarantine)
	}
	if !s.Documents.Valid {
		t.Error("the documents are as valid as before")
	}
	rejected := controlplane.TypeStatus{
		TypeURL: resource.RouteType, State: controlplane.StateNACKed, Documents: []string{"Service/orders"},
		Error: `Error adding/updating route "orders/list": no`, Rejected: []string{routeConfig},
	}
	if !slices.ContainsFunc(r.proxies(), func(p controlplane.ProxyStatus) bool {
		return p.Name == gateway.String() && p.Instance == "1" &&
			slices.ContainsFunc(p.Types, func(s controlplane.TypeStatus) bool { return cmp.Equal(s, rejected) })
	}) {
		t.Errorf("proxies are shown as %+v", r.proxies())
	}
	for got := ""; got != third; { // the revision without it reaches everybody
		got = nextRevision(t, tester)
	}
	if !r.log.has("Service/orders") || r.metric("chancery_quarantined_documents") != 1 {
		t.Error("nobody hears of it")
	}

	// Another try of the document leaves quarantine.
	r.write("orders", withTimeout(ordersYAML, "8s"))
	r.revised(gateway, third)
	if s := r.status(); len(s.Quarantine) != 0 || r.metric("chancery_quarantined_documents") != 0 {
		t.Errorf("quarantine %+v", s.Quarantine)
	}
}

func TestQuarantineWidens(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	first := r.accept(gateway)
	r.write("inventory", strings.Replace(inventoryYAML, "[orders]", "[orders, public]", 1))
	second := r.revised(gateway, first)
	r.write("orders", withTimeout(ordersYAML, "7s"))
	third := r.revised(gateway, second)
	r.reject(gateway, resource.RouteType, "orders/list: no", routeConfig)
	fourth := r.revised(gateway, third)
	// It was the other one.
	r.reject(gateway, resource.RouteType, "orders/list: still no", routeConfig)
	if got := r.revised(gateway, fourth); got != first {
		t.Errorf("revision %s, want the proven %s", got, first)
	}
	if s := r.status(); len(s.Quarantine) != 2 || s.Documents.Served != 4 {
		t.Errorf("quarantine %+v", s.Quarantine)
	}
}

func TestNewDocumentIsLeftOutWhenRejected(t *testing.T) {
	t.Parallel()
	docs := shop()
	delete(docs, "inventory")
	docs["orders"] = strings.Replace(ordersYAML, "uses: [inventory]\n", "", 1)
	r := start(t, docs)
	first := r.accept(gateway)
	r.write("inventory", strings.Replace(inventoryYAML, "[orders]", "[public]", 1))
	second := r.revised(gateway, first)
	r.reject(gateway, resource.ClusterType, "cluster inventory: no", "inventory")
	if got := r.revised(gateway, second); got != first {
		t.Errorf("revision %s, want %s", got, first)
	}
	s := r.status()
	if len(s.Quarantine) != 1 || s.Quarantine[0].Previous || r.view(inventory).Revision == "" {
		t.Errorf("quarantine %+v", s.Quarantine)
	}
}

func TestRemovedDocumentIsBroughtBackWhenRejected(t *testing.T) {
	t.Parallel()
	docs := shop()
	docs["orders"] = strings.Replace(ordersYAML, "uses: [inventory]\n", "", 1)
	docs["inventory"] = strings.Replace(inventoryYAML, "[orders]", "[public]", 1)
	r := start(t, docs)
	first := r.accept(gateway)
	r.remove("inventory")
	second := r.revised(gateway, first)
	r.reject(gateway, resource.RouteType, "no", routeConfig)
	if got := r.revised(gateway, second); got != first {
		t.Errorf("revision %s, want %s", got, first)
	}
	if s := r.status(); len(s.Quarantine) != 1 || !s.Quarantine[0].Previous || r.view(inventory).Revision != "" {
		t.Errorf("quarantine %+v", s.Quarantine)
	}
	r.write("inventory", docs["inventory"])
	r.until("it leaves quarantine", func() bool { return len(r.status().Quarantine) == 0 })
}

// allowed returns the expression that a service's PDPs are given.
func (r *rig) allowed(id identity.ID) string {
	r.t.Helper()
	c := r.open(id)
	defer c.Close()
	c.Subscribe(policyType, "*")
	var policy chancerypb.Policy
	decode(r.t, c.NextACK(), &policy)
	return policy.GetRoutes()[0].GetAllow()
}

// A sidecar that was taken over can undo nothing of others, whatever it says
// and however quick it is.
func TestRejectionCountsForItsOwnViewAlone(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	caller, callee := r.accept(orders), r.accept(inventory)
	tightened := strings.Replace(withTimeout(inventoryYAML, "3s"), `"true"`, `"false"`, 1)
	r.write("inventory", tightened)
	second := r.revised(orders, caller)
	latest := r.revised(inventory, callee)
	r.reject(orders, resource.RouteType, "inventory: no", "outbound")
	if got := r.revised(orders, second); got != caller {
		t.Errorf("its own view is at %s, want %s", got, caller)
	}
	if q := r.status().Quarantine; len(q) != 1 || q[0].Document != "Service/inventory" || q[0].View != orders.String() {
		t.Errorf("quarantine %+v", q)
	}
	if got := r.view(inventory).Revision; got != latest {
		t.Errorf("the view of the tightened service is at %s, want %s", got, latest)
	}
	if got := r.allowed(inventory); got != "false" {
		t.Errorf("allow: %s", got)
	}
}

// Nobody can be blamed for what a view is not made of.
func TestRejectionBlamesWhatItsViewIsMadeOf(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	first, other := r.accept(inventory), r.accept(orders)
	r.write("inventory", strings.Replace(inventoryYAML, `"true"`, `"false"`, 1))
	second := r.revised(inventory, first)
	r.write("orders", strings.Replace(ordersYAML, `"true"`, `"false"`, 1))
	r.revised(orders, other)
	r.reject(inventory, resource.ListenerType, "orders: no")
	if got := r.revised(inventory, second); got != first {
		t.Errorf("revision %s, want %s", got, first)
	}
	if q := r.status().Quarantine; len(q) != 1 || q[0].Document != "Service/inventory" {
		t.Errorf("quarantine %+v", q)
	}
}

// Which of the documents was to blame is a guess, so a change of any is a new
// try of all.
func TestQuarantineEndsForTheInnocent(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	first := r.accept(orders)
	r.write("inventory", withTimeout(inventoryYAML, "7s"))
	second := r.revised(orders, first)
	r.write("orders", strings.Replace(ordersYAML, `"true"`, `"false"`, 1))
	third := r.revised(orders, second)
	r.reject(orders, resource.RouteType, "no idea", "inbound", "outbound")
	r.revised(orders, third)
	if q := r.status().Quarantine; len(q) != 2 {
		t.Fatalf("quarantine %+v", q)
	}
	r.write("orders", strings.Replace(ordersYAML, `"true"`, `"1 == 2"`, 1))
	r.until("both are tried again", func() bool { return len(r.status().Quarantine) == 0 })
}

func TestQuarantineStandsInNoChangesWay(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	first := r.accept(orders)
	r.write("inventory", strings.Replace(inventoryYAML, "[orders]", "[]", 1))
	r.write("orders", strings.Replace(ordersYAML, "uses: [inventory]\n", "", 1))
	second := r.revised(orders, first)
	r.reject(orders, resource.RouteType, "orders: no", "outbound")
	if r.revised(orders, second); len(r.status().Quarantine) == 0 {
		t.Fatal("nothing is in quarantine")
	}
	// What is served instead uses it.
	r.remove("inventory")
	r.until("it is served", func() bool { s := r.status(); return s.Documents.Served == 3 && s.Documents.Valid })
	if q := r.status().Quarantine; len(q) != 0 {
		t.Errorf("quarantine %+v", q)
	}
}

// Without a proven revision there is nothing to go back to. Only what is named
// is left out, and never the view's own document.
func TestRejectionsBeforeAnythingIsProven(t *testing.T) {
	t.Parallel()
	alone := shop()
	delete(alone, "inventory")
	alone["orders"] = strings.Replace(ordersYAML, "uses: [inventory]\n", "", 1)
	tests := map[string]struct {
		docs map[string]string
		by   identity.ID
		text string
		want int
	}{
		"nothing is named":             {shop(), gateway, "no", 0},
		"the mesh":                     {shop(), gateway, "shop: no", 0},
		"a service that others need":   {shop(), orders, "cluster inventory: no", 0},
		"its own document":             {alone, orders, "orders/list: no", 0},
		"a service that can be spared": {alone, gateway, "orders/list: no", 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, tt.docs)
			r.dial(tt.by)
			r.reject(tt.by, resource.RouteType, tt.text, routeConfig, "inbound", "outbound")
			r.until("it is told", func() bool { return r.log.has("resources rejected") })
			if s := r.status(); len(s.Quarantine) != tt.want {
				t.Errorf("quarantine %+v", s.Quarantine)
			}
			if r.view(gateway).Revision == "" {
				t.Error("the gateway's view is gone")
			}
		})
	}
}

func TestRejectionsThatBlameNobody(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	first := r.accept(gateway)
	// Others took it: it is the proxy, whatever has changed elsewhere.
	r.dial(inventory)
	elsewhere := r.view(inventory).Revision
	r.write("inventory", withTimeout(inventoryYAML, "9s"))
	r.revised(inventory, elsewhere)
	r.reject(gateway, resource.RouteType, "orders: no", routeConfig)
	r.write("orders", withTimeout(ordersYAML, "7s"))
	r.revised(gateway, first)
	// Of a revision that is not the latest.
	for _, revision := range []string{"", "unheard-of", first} {
		r.report(gateway, &chancerypb.ReportRequest{
			HeldRevision: revision,
			Types: []*chancerypb.TypeStatus{{
				TypeUrl: resource.RouteType, State: chancerypb.TypeStatus_NACKED, Error: "orders: no", Rejected: []string{routeConfig},
			}},
		})
	}
	// Of endpoints, which no document says.
	r.reject(gateway, resource.EndpointType, "orders: no", "orders")
	if s := r.status(); len(s.Quarantine) != 0 {
		t.Errorf("quarantine %+v", s.Quarantine)
	}
	if got := r.metric("chancery_nacks_total"); got != 5 {
		t.Errorf("%v NACKs counted, want 5", got)
	}
}

// An agent that cannot compile a policy rejects it itself.
func TestAgentsNACK(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	first := r.accept(orders)
	c := r.open(orders)
	c.Subscribe(policyType, "*")
	c.NextACK()
	r.write("orders", strings.Replace(ordersYAML, `allow: "true"`, `allow: "bad"`, 1))
	second := r.revised(orders, first)
	bad := c.Next()
	expect(t, bad, policyType, "+service/orders")
	c.NACK(bad, "expression does not compile")
	if got := r.revised(orders, second); got != first {
		t.Errorf("revision %s, want %s", got, first)
	}
	expect(t, c.NextACK(), policyType, "+service/orders")
	c.Quiet(quiet)
	if s := r.status(); len(s.Quarantine) != 1 || s.Quarantine[0].TypeURL != policyType {
		t.Errorf("quarantine %+v", s.Quarantine)
	}
}

func TestRepeatedReportsOfOneNACK(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.accept(gateway)
	for range 5 {
		r.reject(gateway, resource.RouteType, "no", routeConfig)
	}
	if got := r.log.count("resources rejected"); got != 1 {
		t.Errorf("told %d times, want once", got)
	}
}
