package sidecar_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/sidecar"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startMesh starts a control plane with a view, an agent and an Envoy, and waits
// until Envoy has it all.
func startMesh(t *testing.T, services ...string) (*controlPlane, *agent, *fakeEnvoy) {
	t.Helper()
	return startView(t, view(t, services...))
}

// startView is startMesh with any view.
func startView(t *testing.T, resources []*xds.Resource) (*controlPlane, *agent, *fakeEnvoy) {
	t.Helper()
	cp := newControlPlane(t, public)
	cp.set("rev-1", resources...)
	cp.start()
	a := newAgent(t, cp)
	a.start()
	e := newFakeEnvoy(t, a.socket())
	e.connect()
	eventually(t, "rev-1 is acknowledged", acknowledged(cp, "rev-1"))
	return cp, a, e
}

func acknowledged(cp *controlPlane, revision string) func() error {
	return func() error { return is(cp.lastReport().GetAcknowledgedRevision(), revision) }
}

func TestAgentServesTheView(t *testing.T) {
	cp, a, e := startMesh(t, "orders", "stock")
	want := []string{"CDS orders", "CDS stock", "EDS orders", "EDS stock", "LDS gateway", "RDS gateway"}
	if diff := cmp.Diff(want, e.names()); diff != "" {
		t.Errorf("Envoy holds (-want +got):\n%s", diff)
	}
	eventually(t, "ready", a.Ready)
	if got := e.knows("orders"); got != known {
		t.Errorf("check of a known route: %d", got)
	}
	eventually(t, "all types are acknowledged", func() error {
		for _, typ := range cp.lastReport().GetTypes() {
			if typ.GetState() != chancerypb.TypeStatus_ACKED {
				return fmt.Errorf("%s", typ)
			}
		}
		return is(len(cp.lastReport().GetTypes()), 4)
	})
	for _, typ := range cp.lastReport().GetTypes() {
		if want := xds.DigestOf(cp.sets[typ.GetTypeUrl()].Versions()).String(); typ.GetDigest() != want {
			t.Errorf("digest of %s is %s, the control plane's %s", typ.GetTypeUrl(), typ.GetDigest(), want)
		}
	}
}

func TestRolloutMakesBeforeItBreaks(t *testing.T) {
	cp, _, e := startMesh(t, "orders", "stock")
	hold := make(chan struct{})
	e.set(func(e *fakeEnvoy) { e.hold, e.events = hold, nil })

	cp.set("rev-2", view(t, "orders", "payments")...)
	eventually(t, "the new cluster comes first", func() error { return is(e.history(), []string{"CDS +payments"}) })
	time.Sleep(50 * time.Millisecond) // what must not happen takes no time to wait for
	if err := is(e.history(), []string{"CDS +payments"}); err != nil {
		t.Fatalf("before Envoy acknowledged the cluster: %v", err)
	}
	for _, route := range []string{"orders", "stock", "payments"} {
		if got := e.knows(route); got != known {
			t.Errorf("amid the rollout, check of %s: %d", route, got)
		}
	}
	e.set(func(e *fakeEnvoy) { e.hold = nil })
	close(hold)
	eventually(t, "rev-2 is acknowledged", acknowledged(cp, "rev-2"))
	eventually(t, "the old cluster goes last", func() error {
		events := slices.DeleteFunc(e.history(), func(s string) bool { return strings.HasPrefix(s, "EDS") })
		return is(events, []string{"CDS +payments", "RDS +gateway", "CDS -stock"})
	})
	eventually(t, "the old route is forgotten", func() error { return is(e.knows("stock"), unknown) })
}

func TestSteadyChangeDoesNotPileUpRoutes(t *testing.T) {
	cp, a, e := startMesh(t, "orders")
	hold := make(chan struct{})
	defer close(hold)
	e.set(func(e *fakeEnvoy) { e.hold = hold })
	for _, service := range []string{"stock", "payments", "returns"} {
		cp.set("with-"+service, view(t, service)...)
		eventually(t, "the rollout begins", func() error { return is(a.Status().HeldRevision, "with-"+service) })
	}
	for route, want := range map[string]int{"orders": known, "returns": known, "stock": unknown, "payments": unknown} {
		if got := e.knows(route); got != want {
			t.Errorf("check of %s: %d, want %d", route, got, want)
		}
	}
}

func TestRequestsUnderWayKeepTheirCluster(t *testing.T) {
	t.Parallel()
	cp := newControlPlane(t, public)
	cp.set("rev-1", view(t, "orders", "stock")...)
	cp.start()
	a := newAgent(t, cp)
	a.probation = longProbation
	a.start()
	e := newFakeEnvoy(t, a.socket())
	e.connect()
	eventually(t, "rev-1 is acknowledged", acknowledged(cp, "rev-1"))

	e.set(func(e *fakeEnvoy) { e.events = nil })
	cp.set("rev-2", view(t, "orders")...)
	eventually(t, "rev-2 is taken", func() error { return is(e.history(), []string{"RDS +gateway"}) })
	time.Sleep(100 * time.Millisecond) // what must not happen takes no time to wait for
	if err := is(e.history(), []string{"RDS +gateway"}); err != nil {
		t.Errorf("when the route is gone: %v", err)
	}
	if got := e.knows("stock"); got != known {
		t.Errorf("check of a request that came in by the route: %d", got)
	}
	eventually(t, "nothing is left of it", func() error {
		return errors.Join(is(e.history(), []string{"RDS +gateway", "CDS -stock", "EDS -stock"}), is(e.knows("stock"), unknown))
	})
}

func TestRejectedClusterHoldsUpItsRevisionAlone(t *testing.T) {
	cp, _, e := startMesh(t, "orders")
	e.set(func(e *fakeEnvoy) { e.events, e.reject = nil, func(name string) bool { return name == "bad" } })

	cp.set("rev-2", view(t, "stock", "bad")...)
	eventually(t, "the NACK is reported", func() error {
		for _, typ := range cp.lastReport().GetTypes() {
			if typ.GetTypeUrl() == resource.ClusterType && typ.GetState() == chancerypb.TypeStatus_NACKED {
				return is(typ.GetError(), "bad: bad")
			}
		}
		return errors.New("no NACK")
	})
	cp.sets[resource.EndpointType].Apply([]*xds.Resource{endpoints(t, "orders", 9)})
	if slices.Contains(e.history(), "RDS +gateway") || slices.Contains(e.history(), "CDS -orders") {
		t.Fatalf("Envoy got more of a revision whose cluster it rejected: %v", e.history())
	}
	if got := e.knows("orders"); got != known {
		t.Errorf("check of a route that Envoy still has: %d", got)
	}
	cp.set("rev-3", view(t, "stock")...)
	eventually(t, "the next revision is acknowledged", acknowledged(cp, "rev-3"))
	eventually(t, "nothing is left over", func() error {
		return is(e.names(), []string{"CDS stock", "EDS stock", "LDS gateway", "RDS gateway"})
	})
}

// nacked returns the words of Envoy's NACK of a type that was reported last.
func nacked(cp *controlPlane, typeURL string) string {
	for _, typ := range cp.lastReport().GetTypes() {
		if typ.GetTypeUrl() == typeURL && typ.GetState() == chancerypb.TypeStatus_NACKED {
			return typ.GetError()
		}
	}
	return ""
}

func TestEnvoyThatRestartsAfterARejectionGetsWhatWorked(t *testing.T) {
	cp, a, e := startMesh(t, "orders")
	routes := e.versions(resource.RouteType)
	bad := func(name string) bool { return name == "bad" }
	e.set(func(e *fakeEnvoy) { e.reject = bad })
	cp.set("rev-2", view(t, "stock", "bad")...)
	eventually(t, "the NACK is reported", func() error { return is(nacked(cp, resource.ClusterType), "bad: bad") })
	e.disconnect()
	eventually(t, "Envoy is away", func() error { return is(a.Status().EnvoyConnected, false) })
	time.Sleep(50 * time.Millisecond) // what must not happen takes no time to wait for

	fresh := newFakeEnvoy(t, a.socket())
	fresh.reject = bad
	fresh.connect()
	eventually(t, "it gets the last good revision", func() error {
		return errors.Join(is(fresh.names(), []string{"CDS orders", "EDS orders", "LDS gateway", "RDS gateway"}),
			is(fresh.versions(resource.RouteType), routes))
	})
	if slices.Contains(fresh.history(), "CDS +bad") {
		t.Error("Envoy was sent again what it had rejected")
	}
	eventually(t, "the NACK is still reported", func() error {
		return errors.Join(is(cp.lastReport().GetEnvoyConnected(), true), is(nacked(cp, resource.ClusterType), "bad: bad"))
	})
	cp.set("rev-3", view(t, "stock")...)
	eventually(t, "the next revision is acknowledged", acknowledged(cp, "rev-3"))
	if err := is(nacked(cp, resource.ClusterType), ""); err != nil {
		t.Error(err)
	}
}

func TestRejectedChangeGoesBackToWhatWorked(t *testing.T) {
	cp, _, e := startMesh(t, "orders")
	good := e.versions(resource.ClusterType)["orders"]
	rejected := 0
	e.set(func(e *fakeEnvoy) {
		e.reject = func(name string) bool { rejected++; return name == "orders" && rejected == 1 }
	})
	changed := view(t, "orders")
	for i, r := range changed {
		if r.TypeURL == resource.ClusterType {
			changed[i] = encode(t, "orders", &clusterv3.Cluster{Name: "orders", AltStatName: "changed"})
		}
	}
	cp.set("rev-2", changed...)
	eventually(t, "the NACK is reported", func() error {
		return is(len(cp.lastReport().GetTypes()) > 0 && slices.ContainsFunc(cp.lastReport().GetTypes(), func(s *chancerypb.TypeStatus) bool {
			return s.GetState() == chancerypb.TypeStatus_NACKED
		}), true)
	})
	cp.set("rev-1", view(t, "orders")...)
	eventually(t, "the earlier revision is acknowledged again", func() error {
		return errors.Join(is(cp.lastReport().GetHeldRevision(), "rev-1"), acknowledged(cp, "rev-1")(),
			is(e.versions(resource.ClusterType)["orders"], good))
	})
}

func TestRevisionWaitsForAllItsParts(t *testing.T) {
	cp, _, e := startMesh(t, "orders")
	e.forget()
	next := byType(view(t, "orders", "stock"))
	cp.announce("rev-2", view(t, "orders", "stock")...)
	cp.sets[policyType].Replace(next[policyType])
	cp.sets[resource.ListenerType].Replace(next[resource.ListenerType])
	cp.sets[resource.RouteType].Replace(next[resource.RouteType])
	time.Sleep(100 * time.Millisecond) // what must not happen takes no time to wait for
	if err := is(e.history(), []string{}); err != nil {
		t.Fatalf("without its clusters: %v", err)
	}
	cp.sets[resource.ClusterType].Replace(next[resource.ClusterType])
	cp.sets[resource.EndpointType].Apply(next[resource.EndpointType])
	eventually(t, "the whole is taken", func() error {
		return errors.Join(acknowledged(cp, "rev-2")(),
			is(e.names(), []string{"CDS orders", "CDS stock", "EDS orders", "EDS stock", "LDS gateway", "RDS gateway"}))
	})
}

func TestReportsAreMadeAgain(t *testing.T) {
	cp := newControlPlane(t, public)
	cp.failReports = 2
	cp.set("rev-1", view(t, "orders")...)
	cp.start()
	a := newAgent(t, cp)
	a.start()
	eventually(t, "a report arrives", func() error { return is(cp.lastReport().GetHeldRevision(), "rev-1") })
}

func TestEndpointsGoStraightThrough(t *testing.T) {
	cp, _, e := startMesh(t, "orders")
	// A revision that never completes must not hold endpoints up.
	cp.sets[resource.ListenerType].Apply([]*xds.Resource{encode(t, "new", &listenerv3.Listener{Name: "new"})})
	changed := endpoints(t, "orders", 9)
	begin := time.Now()
	cp.sets[resource.EndpointType].Apply([]*xds.Resource{changed})
	eventually(t, "endpoints arrive", func() error { return is(e.versions(resource.EndpointType)["orders"], changed.Version) })
	t.Logf("control plane to Envoy: %v", time.Since(begin))
	if err := is(e.versions(resource.ListenerType)["new"], ""); err != nil {
		t.Errorf("Envoy got a part of an incomplete revision: %v", err)
	}
}

func TestUnusablePolicyIsRejected(t *testing.T) {
	cp, _, e := startMesh(t, "orders")
	bad := view(t, "orders", "stock")
	for i, r := range bad {
		if r.TypeURL == policyType {
			bad[i] = encode(t, public.String(), &chancerypb.Policy{Name: "gateway/other", TrustDomain: trustDomain})
		}
	}
	cp.set("rev-2", bad...)
	eventually(t, "the policy is NACKed", func() error { return is(len(cp.rejections()), 1) })
	if got := e.knows("orders"); got != known {
		t.Errorf("check under the last good policy: %d", got)
	}
	if err := acknowledged(cp, "rev-1")(); err != nil {
		t.Error(err)
	}
	cp.set("rev-3", view(t, "orders", "stock")...)
	eventually(t, "a good policy is taken", acknowledged(cp, "rev-3"))
}

func TestControlPlaneRestartResendsNothing(t *testing.T) {
	cp, _, e := startMesh(t, "orders")
	e.forget()
	cp.stop()
	before := cp.timesSent("orders")
	cp.set("rev-2", view(t, "orders", "stock")...)
	cp.start()
	eventually(t, "the change arrives", acknowledged(cp, "rev-2"))
	if got := cp.timesSent("orders"); got != before {
		t.Errorf("what the agent held was sent %d times more", got-before)
	}
	if slices.Contains(e.history(), "CDS +orders") {
		t.Errorf("Envoy got what it held: %v", e.history())
	}
}

func TestEnvoyThatKnowsMoreLosesNothingBeforeTheControlPlaneSpoke(t *testing.T) {
	cp := newControlPlane(t, public)
	a := newAgent(t, cp)
	a.start()
	e := newFakeEnvoy(t, a.socket())
	e.held[resource.ClusterType]["orders"] = "0123"
	e.held[resource.ClusterType]["gone"] = "4567"
	e.held[resource.ListenerType][envoy.ListenerGateway] = "89ab"
	e.connect()
	eventually(t, "Envoy is connected", func() error { return is(a.Status().EnvoyConnected, true) })
	time.Sleep(100 * time.Millisecond)
	if diff := cmp.Diff([]string{"CDS gone", "CDS orders", "LDS gateway"}, e.names()); diff != "" {
		t.Fatalf("Envoy was robbed (-want +got):\n%s", diff)
	}
	cp.set("rev-1", view(t, "orders")...)
	cp.start()
	eventually(t, "the real difference is sent", func() error {
		return is(e.names(), []string{"CDS orders", "EDS orders", "LDS gateway", "RDS gateway"})
	})
	connections := slices.DeleteFunc(e.history(), func(s string) bool { return s != "connected" })
	if len(connections) != 2 {
		t.Errorf("Envoy's stream was ended %d times, want once", len(connections)-1)
	}
}

// What is new to Envoy, or the Envoy itself, has its probation from then on.
func TestProbationIsOfOneEnvoyWithAllOfIt(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(cp *controlPlane, a *agent, e *fakeEnvoy) string{
		"other clusters": func(_ *controlPlane, a *agent, _ *fakeEnvoy) string {
			sidecar.Regenerate(a.Agent, map[string]string{envoy.AnyService: "x"})
			return "rev-2"
		},
		"another Envoy": func(cp *controlPlane, a *agent, e *fakeEnvoy) string {
			release := sidecar.HoldDisk(a.Agent)
			defer release()
			next := policyOf(t, view(t, "orders", "stock"), func(p *chancerypb.Policy) { p.DenyStatus = 403 })
			cp.set("rev-3", next...)
			eventually(t, "the policy is in force", func() error { return is(e.knows("orders"), 403) })
			e.disconnect()
			fresh := newFakeEnvoy(t, a.socket())
			fresh.connect()
			eventually(t, "another Envoy has it all", func() error { return is(fresh.names(), secondView) })
			return "rev-3"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cp, a, e := startMesh(t, "orders")
			a.stop()
			a.probation = longProbation
			a.start()
			eventually(t, "rev-1 is acknowledged", acknowledged(cp, "rev-1"))
			cp.set("rev-2", view(t, "orders", "stock")...)
			eventually(t, "Envoy takes rev-2", func() error { return is(e.names(), secondView) })
			time.Sleep(time.Second) // of a probation that is not to end before the change
			began := time.Now()
			revision := change(cp, a, e)
			eventually(t, revision+" is acknowledged", acknowledged(cp, revision))
			if took := time.Since(began); took < longProbation {
				t.Errorf("%s is acknowledged after %v", revision, took)
			}
		})
	}
}

// A revision that comes meanwhile may be one that is not rolled out: it must not
// take the place of a renewal of connections.
func TestRenewalOfConnectionsIsNotThrownAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := sidecar.NewRollout()
		o.Submit("rev-1")
		o.Regenerate(map[string]string{"orders": "1"})
		o.Regenerate(map[string]string{"orders": "2"})
		o.Submit("rev-2")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		got := []string{o.Next(ctx), o.Next(ctx), o.Next(ctx)}
		slices.Sort(got)
		if want := []string{"", "again", "rev-2"}; !slices.Equal(got, want) {
			t.Errorf("next come %v, want %v", got, want)
		}
	})
}
