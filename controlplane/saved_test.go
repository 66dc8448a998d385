package controlplane_test

import (
	"os"
	"strings"
	"testing"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/controlplane"
)

// restart starts another control plane in place of this one, with other
// documents maybe.
func (r *rig) restart(docs map[string]string) {
	r.t.Helper()
	r.stop()
	for name, text := range docs {
		r.write(name, text)
	}
	r.start()
	r.until("it has begun", func() bool { return r.log.has("documents served") })
}

func TestWhatIsProvenOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	first := r.accept(orders)
	r.restart(nil)
	if v := r.view(orders); v.Proven != first || v.Revision != first {
		t.Errorf("what is proven: %+v", v)
	}
	if v := r.view(inventory); v.Proven != "" || v.Revision == "" {
		t.Errorf("what nobody ever took: %+v", v)
	}

	r.restart(map[string]string{"orders": strings.Replace(ordersYAML, `"true"`, `"false"`, 1)})
	second := r.view(orders).Revision
	for range 2 { // still nobody took it
		if v := r.view(orders); v.Proven != first || v.Revision != second || second == first {
			t.Fatalf("what changed meanwhile: %+v", v)
		}
		tester := r.open(orders)
		if got := revisionOf(t, tester); got != second {
			t.Errorf("who tries it is given %s, want %s", got, second)
		}
		if got := revisionOf(t, r.open(orders)); got != first {
			t.Errorf("a new proxy is given %s, want %s", got, first)
		}
		r.restart(nil)
	}
	r.dial(orders)
	r.reject(orders, resource.RouteType, "it is the view's own document", "inbound")
	if got := r.revised(orders, second); got != first {
		t.Errorf("revision %s, want %s", got, first)
	}
}

func TestQuarantineOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	first := r.accept(orders)
	r.write("orders", strings.Replace(ordersYAML, `"true"`, `"false"`, 1))
	second := r.revised(orders, first)
	r.reject(orders, resource.RouteType, "no", "inbound")
	r.revised(orders, second)
	before := r.status().Quarantine
	if len(before) != 1 {
		t.Fatalf("quarantine %+v", before)
	}
	r.restart(nil)
	if diff := cmp.Diff(before, r.status().Quarantine); diff != "" {
		t.Errorf("quarantine (-before +after):\n%s", diff)
	}
	if v := r.view(orders); v.Revision != first || v.Proven != first {
		t.Errorf("view %+v, want %s", v, first)
	}
	r.restart(map[string]string{"orders": withTimeout(ordersYAML, "3s")})
	if q := r.status().Quarantine; len(q) != 0 {
		t.Errorf("quarantine %+v after the document changed", q)
	}
}

// Without what is served instead it is no quarantine.
func TestSpoiltQuarantineIsNotUsed(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	first := r.accept(orders)
	r.write("orders", strings.Replace(ordersYAML, `"true"`, `"false"`, 1))
	second := r.revised(orders, first)
	r.reject(orders, resource.RouteType, "no", "inbound")
	r.revised(orders, second)
	r.spoil(func(s string) string { return strings.ReplaceAll(s, `"previous":"`, `"previous":"0`) })
	if q := r.status().Quarantine; len(q) != 0 || !r.log.has("what service/orders had before is lost") {
		t.Errorf("quarantine %+v", q)
	}
	if v := r.view(orders); v.Revision != second || v.Proven != first {
		t.Errorf("view %+v, want %s over %s", v, second, first)
	}
}

// spoil changes what the control plane saved, and starts another.
func (r *rig) spoil(change func(string) string) {
	r.t.Helper()
	r.stop()
	path := r.state + "/documents.json"
	data, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	spoilt := change(string(data))
	if spoilt == string(data) {
		r.t.Fatal("nothing is spoilt")
	}
	if err := os.WriteFile(path, []byte(spoilt), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.restart(nil)
}

func TestDocumentsAreSavedWhileItRuns(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.accept(orders)
	r.until("it is on disk that orders is proven", func() bool {
		data, err := os.ReadFile(r.state + "/documents.json")
		return err == nil && strings.Contains(string(data), `"proven":[{`)
	})
}

func TestSpoiltDocumentsAreNotUsed(t *testing.T) {
	t.Parallel()
	tests := map[string]func(string) string{
		"garbage":          func(string) string { return "{" },
		"nothing":          func(string) string { return "{}" },
		"a changed text":   func(s string) string { return strings.ReplaceAll(s, "GET", "PUT") },
		"a view of nobody": func(s string) string { return strings.ReplaceAll(s, `"Name":"orders"`, `"Name":"nobody"`) },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, shop())
			first := r.accept(orders)
			r.spoil(spoil)
			want := controlplane.ViewStatus{Name: orders.String(), Revision: first}
			if diff := cmp.Diff(want, r.view(orders)); diff != "" {
				t.Errorf("view (-want +got):\n%s", diff)
			}
			if told := r.log.has("documents of an earlier process not used"); told != (name != "nothing") {
				t.Errorf("is it told: %v", told)
			}
		})
	}
}

// Endpoints of what new proxies are given are there when they are.
func TestEndpointsOfWhatIsProvenOutliveTheProcess(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.accept(orders)
	r.registry.tell("inventory", "127.0.0.1:1")
	r.until("it is known", func() bool { return r.status().Services[0].Instances == 1 })
	r.restart(map[string]string{
		"orders":    strings.Replace(ordersYAML, "uses: [inventory]\n", "", 1),
		"inventory": strings.Replace(inventoryYAML, "[orders]", "[]", 1),
	})
	tester := r.open(orders)
	tester.Subscribe(resource.EndpointType, "inventory")
	if diff := cmp.Diff([]uint32{1}, ports(t, tester.NextACK())); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
	r.accept(orders)
	r.until("only what is used is wanted", func() bool { return r.registry.wants("orders") })
}
