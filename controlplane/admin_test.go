package controlplane_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/discovery"
	"github.com/chancery-mesh/chancery/extauthz/provider"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// proxies returns what the control plane tells of its proxies, but when.
func (r *rig) proxies() []controlplane.ProxyStatus {
	r.t.Helper()
	p, err := r.admin.Proxies(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range p {
		if time.Since(p[i].Since) > time.Minute {
			r.t.Errorf("since %v", p[i].Since)
		}
		p[i].Since = time.Time{}
	}
	return p
}

func TestProxies(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	c := r.open(gateway)
	c.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "1"}, TypeUrl: revisionType, ResourceNamesSubscribe: []string{"*"}})
	var revision chancerypb.Revision
	decode(t, c.NextACK(), &revision)
	r.report(gateway, &chancerypb.ReportRequest{
		HeldRevision: revision.GetId(), AcknowledgedRevision: "older", EnvoyConnected: true, EnvoyVersion: "1.40.0", AgentVersion: "1",
		Types: []*chancerypb.TypeStatus{
			{TypeUrl: resource.RouteType, State: chancerypb.TypeStatus_NACKED, Error: "no", Rejected: []string{"gateway"}},
			{TypeUrl: resource.ClusterType, State: chancerypb.TypeStatus_ACKED, Digest: revision.GetDigests()[resource.ClusterType]},
			{TypeUrl: resource.ListenerType, State: chancerypb.TypeStatus_ACKED, Digest: "of an older set"},
			{TypeUrl: resource.EndpointType, State: chancerypb.TypeStatus_PENDING},
		},
	})
	want := controlplane.ProxyStatus{
		Name: "gateway/public", Instance: "1", Connected: true, EnvoyConnected: true,
		EnvoyVersion: "1.40.0", AgentVersion: "1",
		Latest: revision.GetId(), Held: revision.GetId(), Acknowledged: "older",
		Types: []controlplane.TypeStatus{
			{TypeURL: resource.ClusterType, State: controlplane.StateACKed},
			{TypeURL: resource.EndpointType, State: controlplane.StatePending},
			{TypeURL: resource.ListenerType, State: controlplane.StateStale},
			{TypeURL: resource.RouteType, State: controlplane.StateNACKed, Error: "no", Rejected: []string{"gateway"}},
		},
		Lineage: r.svid(gateway).Serial(),
	}
	if diff := cmp.Diff([]controlplane.ProxyStatus{want}, r.proxies()); diff != "" {
		t.Errorf("proxies (-want +got):\n%s", diff)
	}

	// The next ACK clears it.
	r.report(gateway, &chancerypb.ReportRequest{
		HeldRevision: revision.GetId(), AcknowledgedRevision: revision.GetId(), EnvoyConnected: true,
		Types: []*chancerypb.TypeStatus{{TypeUrl: resource.RouteType, State: chancerypb.TypeStatus_ACKED, Digest: revision.GetDigests()[resource.RouteType]}},
	})
	if got := r.proxies()[0].Types; len(got) != 1 || got[0].State != controlplane.StateACKed || got[0].Error != "" {
		t.Errorf("after the ACK: %+v", got)
	}

	c.Close()
	r.until("it is gone", func() bool { return !r.proxies()[0].Connected })
	if p := r.proxies()[0]; p.EnvoyConnected {
		t.Errorf("gone, but %+v", p)
	}
}

func TestWhatAnAgentSaysIsBounded(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	client := chancerypb.NewControlPlaneClient(r.dial(orders))
	long := &chancerypb.ReportRequest{
		Instance: strings.Repeat("long", 1000),
		Types:    []*chancerypb.TypeStatus{{TypeUrl: "made-up", State: chancerypb.TypeStatus_NACKED, Error: strings.Repeat("e", 100_000)}},
	}
	if _, err := client.Report(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	if p := r.proxies()[0]; len(p.Types[0].Error) > 10_000 || len(p.Instance) > 256 {
		t.Errorf("%d bytes of an error are kept, %d of a name", len(p.Types[0].Error), len(p.Instance))
	}
	// Whatever it calls itself, it is one agent.
	for i := range 20 {
		if _, err := client.Report(t.Context(), &chancerypb.ReportRequest{Instance: strconv.Itoa(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(r.proxies()); got != 1 {
		t.Errorf("%d proxies are kept, want 1", got)
	}
}

func TestProxiesThatWentAwayAreForgotten(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.stop()
	config := r.config()
	config.Registerer = nil
	server, err := controlplane.New(config)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		disconnect := controlplane.Connect(server, orders, "1")
		controlplane.Connect(server, orders, "2")
		disconnect()
		for _, want := range []int{2, 1, 1} {
			controlplane.Tidy(server)
			if got := len(controlplane.Proxies(server)); got != want {
				t.Errorf("%d proxies, want %d", got, want)
			}
			time.Sleep(11 * time.Minute)
		}
	})
}

func TestStatus(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.dial(orders)
	r.registry.updates <- discovery.Update{Service: "orders", Held: true, Reason: "the registry has no leader"}
	r.until("the registry is heard", func() bool { return r.status().Services[1].Held })
	want := controlplane.Status{
		Version:    "test",
		Documents:  controlplane.DocumentsStatus{Dir: r.docs, Valid: true, Served: 4},
		Quarantine: []controlplane.QuarantineStatus{},
		Views:      []controlplane.ViewStatus{{Name: "gateway/public"}, {Name: "service/inventory"}, {Name: "service/orders"}},
		Services:   []controlplane.ServiceStatus{{Name: "inventory"}, {Name: "orders", Held: true, Reason: "the registry has no leader"}},
		Providers:  []provider.Status{},
	}
	ignore := cmp.Options{
		cmpopts.IgnoreFields(controlplane.Status{}, "Started", "Authority"),
		cmpopts.IgnoreFields(controlplane.DocumentsStatus{}, "Since"),
		cmpopts.IgnoreFields(controlplane.ViewStatus{}, "Revision"),
	}
	if diff := cmp.Diff(want, r.status(), ignore); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	info, err := os.Stat(controlplane.AdminSocket(r.run))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("admin socket: %v, %v", info, err)
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.until("it is ready", func() bool { return r.server.Ready() == nil })
	server := httptest.NewServer(r.server.Handler())
	t.Cleanup(server.Close)
	get := func(path string) (int, string) {
		resp, err := server.Client().Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/metrics": "chancery_documents_valid 1"} {
		if code, body := get(path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	for _, path := range []string{"/", "/status", "/proxies", "/debug/pprof/"} {
		if code, _ := get(path); code != http.StatusNotFound {
			t.Errorf("%s: %d", path, code)
		}
	}
	r.registry.fail(errors.New("consul is away"))
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "consul is away") {
		t.Errorf("/readyz: %d %q", code, body)
	}
	if code, _ := get("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz: %d", code)
	}
}

func TestAdminClientWithoutAControlPlane(t *testing.T) {
	t.Parallel()
	if _, err := controlplane.NewAdminClient(t.TempDir()).Status(t.Context()); err == nil {
		t.Error("Status of nobody")
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	loose := t.TempDir() // 0755
	for name, spoil := range map[string]func(*controlplane.Config){
		"no documents":          func(c *controlplane.Config) { c.Documents = "" },
		"no registry":           func(c *controlplane.Config) { c.Registry = nil },
		"no run directory":      func(c *controlplane.Config) { c.RunDir = "" },
		"no address":            func(c *controlplane.Config) { c.Listen = "" },
		"no state directory":    func(c *controlplane.Config) { c.StateDir = "" },
		"no expressions":        func(c *controlplane.Config) { c.Options.CheckExpression = nil },
		"a state that all read": func(c *controlplane.Config) { c.StateDir = loose },
	} {
		config := r.config()
		spoil(&config)
		if _, err := controlplane.New(config); err == nil {
			t.Errorf("%s: New took it", name)
		}
	}
}
