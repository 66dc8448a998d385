package controlplane_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/discovery"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/lockedbuffer"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/internal/xdstest"
	"github.com/chancery-mesh/chancery/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	policyType       = xds.TypeURL(&chancerypb.Policy{})
	revisionType     = xds.TypeURL(&chancerypb.Revision{})
	providerType     = xds.TypeURL(&chancerypb.Provider{})
	accountsType     = xds.TypeURL(&chancerypb.Accounts{})
	passportKeysType = xds.TypeURL(&chancerypb.PassportKeys{})
	signingKeysType  = xds.TypeURL(&chancerypb.SigningKeys{})
	trustType        = xds.TypeURL(&chancerypb.Trust{})
)

var viewTypes = []string{resource.ClusterType, resource.RouteType, resource.ListenerType, policyType, revisionType}

// quiet is how long nothing must come for a test to believe that nothing will.
const quiet = 100 * time.Millisecond

var (
	gateway   = identity.ID{Role: identity.RoleGateway, Name: "public"}
	orders    = identity.ID{Role: identity.RoleService, Name: "orders"}
	inventory = identity.ID{Role: identity.RoleService, Name: "inventory"}
)

// The documents that tests begin with.
const (
	meshYAML = `
kind: Mesh
name: shop
trustDomain: shop.example
`
	publicYAML = `
kind: Gateway
name: public
profile: private
listen: 127.0.0.1:8080
routes:
  - match: {path: "/{service}/**"}
    to: "{service}"
    rewrite: /**
`
	ordersYAML = `
kind: Service
name: orders
uses: [inventory]
callers: [public]
routes:
  - {name: list, match: {method: GET, path: /orders}, allow: "true"}
`
	inventoryYAML = `
kind: Service
name: inventory
callers: [orders]
routes:
  - {name: stock, match: {method: GET, path: "/stock/{item}"}, allow: "true"}
`
)

// withTimeout changes a service's document.
func withTimeout(document, timeout string) string {
	return strings.Replace(document, `allow: "true"`, `allow: "true", timeout: `+timeout, 1)
}

func shop() map[string]string {
	return map[string]string{"mesh": meshYAML, "public": publicYAML, "orders": ordersYAML, "inventory": inventoryYAML}
}

// rig is a control plane with its surroundings.
type rig struct {
	t        testing.TB
	docs     string
	run      string
	state    string
	registry *registry
	metrics  *prometheus.Registry
	log      *logBuffer
	server   *controlplane.Server
	admin    *controlplane.AdminClient
	svids    map[identity.ID]*identity.SVID
	options  []func(*controlplane.Config)
	stop     func()
}

// start runs a control plane on documents by file name, until the test ends.
func start(t testing.TB, docs map[string]string, options ...func(*controlplane.Config)) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "cp") // short: socket paths are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &rig{t: t, docs: dir + "/docs", run: dir + "/run", state: dir + "/state", svids: map[identity.ID]*identity.SVID{}, options: options}
	if err := os.Mkdir(r.docs, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range docs {
		r.write(name, text)
	}
	r.start()
	return r
}

// start starts the control plane, again maybe.
func (r *rig) start() {
	r.t.Helper()
	r.registry = newRegistry()
	r.metrics = prometheus.NewPedanticRegistry()
	r.log = &logBuffer{}
	server, err := controlplane.New(r.config())
	if err != nil {
		r.t.Fatal(err)
	}
	// Tests are many agents with one certificate.
	controlplane.Bound(server, func(b *controlplane.Bounds) { b.PerAgent(1000) })
	r.server, r.admin = server, controlplane.NewAdminClient(r.run)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- server.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run: %v", err)
		}
	})
	r.t.Cleanup(func() {
		r.stop()
		if r.t.Failed() {
			r.t.Logf("log of the control plane:\n%s", r.log.String())
		}
	})
}

// with returns the rig for a part of a test.
func (r *rig) with(t *testing.T) *rig {
	part := *r
	part.t = t
	part.svids = maps.Clone(r.svids)
	return &part
}

func (r *rig) config() controlplane.Config {
	config := controlplane.Config{
		Documents:  r.docs,
		Options:    mesh.Options{CheckExpression: func(mesh.Expression) []mesh.ExpressionFault { return nil }},
		Registry:   r.registry,
		RunDir:     r.run,
		Listen:     "127.0.0.1:0",
		StateDir:   r.state,
		Version:    "test",
		Logger:     slog.New(slog.NewTextHandler(r.log, nil)),
		Registerer: r.metrics,
		Gatherer:   r.metrics,
	}
	for _, change := range r.options {
		change(&config)
	}
	return config
}

// write puts a document's file in place.
func (r *rig) write(name, text string) {
	r.t.Helper()
	temp := filepath.Join(r.docs, "."+name)
	if err := os.WriteFile(temp, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(temp, r.file(name)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) remove(name string) {
	r.t.Helper()
	if err := os.Remove(r.file(name)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) file(name string) string { return filepath.Join(r.docs, name+".yaml") }

// svid returns a certificate of a workload: the same one each time, as of one
// agent.
func (r *rig) svid(id identity.ID) *identity.SVID {
	r.t.Helper()
	if r.svids[id] == nil {
		r.svids[id] = r.newSVID(id)
	}
	return r.svids[id]
}

// newSVID returns a new certificate of a workload, as of another agent.
func (r *rig) newSVID(id identity.ID) *identity.SVID {
	r.t.Helper()
	r.until("agents are served", func() bool { return r.server.Addr() != nil && controlplane.Authority(r.server) != nil })
	return r.signed(ca.Request{ID: id, TTL: time.Hour})
}

// signed returns a certificate with a key of its own.
func (r *rig) signed(req ca.Request) *identity.SVID {
	r.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Key = key.Public()
	chain, _, err := controlplane.Authority(r.server).Sign(req)
	if err != nil {
		r.t.Fatal(err)
	}
	svid, err := identity.ParseSVID(req.ID, key, chain)
	if err != nil {
		r.t.Fatal(err)
	}
	return svid
}

// source is an identity that stays as it is.
type source struct {
	svid  *identity.SVID
	trust *identity.Trust
}

func (s source) SVID() *identity.SVID { return s.svid }

func (s source) Trust() *identity.Trust { return s.trust }

// trust returns what the control plane trusts now.
func (r *rig) trust() *identity.Trust {
	r.t.Helper()
	trust, err := identity.ParseTrust(controlplane.Authority(r.server).Trust())
	if err != nil {
		r.t.Fatal(err)
	}
	return trust
}

// dial connects as a workload, as soon as a document speaks of it.
func (r *rig) dial(id identity.ID) *grpc.ClientConn {
	r.t.Helper()
	r.until("there is a view of "+id.String(), func() bool { return controlplane.Serves(r.server, id) })
	return r.dialWith(r.svid(id))
}

// dialWith connects with a certificate; nil is none.
func (r *rig) dialWith(svid *identity.SVID, options ...grpc.DialOption) *grpc.ClientConn {
	r.t.Helper()
	return xdstest.DialWith(r.t, r.server.Addr().String(), identity.ClientCredentials(source{svid, r.trust()}), options...)
}

// open opens a stream as a workload.
func (r *rig) open(id identity.ID) *xdstest.Client {
	r.t.Helper()
	return xdstest.Open(r.t, r.dial(id))
}

// until waits for a condition.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited in vain until %s", what)
		}
	}
}

func (r *rig) status() controlplane.Status {
	r.t.Helper()
	s, err := r.admin.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// view returns the status of one view.
func (r *rig) view(id identity.ID) controlplane.ViewStatus {
	r.t.Helper()
	for _, v := range r.status().Views {
		if v.Name == id.String() {
			return v
		}
	}
	return controlplane.ViewStatus{}
}

// revised waits for another revision than before of a view.
func (r *rig) revised(id identity.ID, before string) string {
	r.t.Helper()
	var now string
	r.until("there is another revision of "+id.String(), func() bool {
		now = r.view(id).Revision
		return now != before && now != ""
	})
	return now
}

// report reports as an agent of id.
func (r *rig) report(id identity.ID, report *chancerypb.ReportRequest) {
	r.t.Helper()
	if report.GetInstance() == "" {
		report.Instance = "1"
	}
	if _, err := chancerypb.NewControlPlaneClient(r.dial(id)).Report(r.t.Context(), report); err != nil {
		r.t.Fatal(err)
	}
}

// accept reports that an Envoy took the latest revision, and returns that.
func (r *rig) accept(id identity.ID) string {
	r.t.Helper()
	r.dial(id)
	revision := r.view(id).Revision
	r.report(id, &chancerypb.ReportRequest{HeldRevision: revision, AcknowledgedRevision: revision})
	return revision
}

// reject reports that an Envoy did not take some resources of the latest
// revision.
func (r *rig) reject(id identity.ID, typeURL, text string, names ...string) {
	r.t.Helper()
	r.report(id, &chancerypb.ReportRequest{
		HeldRevision: r.view(id).Revision,
		Types: []*chancerypb.TypeStatus{{
			TypeUrl:  typeURL,
			State:    chancerypb.TypeStatus_NACKED,
			Error:    text,
			Rejected: names,
		}},
	})
}

// metric returns the sum of a metric over its labels.
func (r *rig) metric(name string) (sum float64) {
	r.t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return sum
}

// registry is a registry that says what it is told.
type registry struct {
	updates chan discovery.Update

	mu     sync.Mutex
	wanted []string
	err    error
}

func newRegistry() *registry { return &registry{updates: make(chan discovery.Update)} }

func (g *registry) Run(ctx context.Context, notify func(discovery.Update)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case u := <-g.updates:
			notify(u)
		}
	}
}

func (g *registry) Want(services []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wanted = services
}

func (g *registry) Ready() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

func (g *registry) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
}

func (g *registry) wants(services ...string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Equal(g.wanted, services)
}

// tell says that a service has instances at these mesh addresses.
func (g *registry) tell(service string, addresses ...string) {
	u := discovery.Update{Service: service}
	for _, a := range addresses {
		u.Instances = append(u.Instances, discovery.Instance{
			ID: a, Mesh: netip.MustParseAddrPort(a), Address: netip.MustParseAddrPort(a), Health: discovery.Passing,
		})
	}
	g.updates <- u
}

// logBuffer is the log of a control plane.
type logBuffer struct{ lockedbuffer.Buffer }

func (l *logBuffer) count(text string) int { return strings.Count(l.String(), text) }

func (l *logBuffer) has(text string) bool { return strings.Contains(l.String(), text) }
