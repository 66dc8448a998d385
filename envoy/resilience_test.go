package envoy_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/envoytest"
	"github.com/chancery-mesh/chancery/mesh"
)

func TestTimeout(t *testing.T) {
	t.Parallel()
	slow := route("slow", "/slow")
	slow.Timeout = 300 * time.Millisecond
	upstream := envoytest.NewUpstream(t, nil)
	upstream.Handle(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	e := startGateway(t, shop(slow), map[string][]instance{"orders": plain(upstream)})
	began := time.Now()
	got := get(t, "http://"+e.Address("gateway")+"/slow")
	if took := time.Since(began); got.status != http.StatusGatewayTimeout || took < 250*time.Millisecond || took > 10*time.Second {
		t.Errorf("status %d after %v, want 504 after 300ms", got.status, took)
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	retried := route("retried", "/retried")
	retried.Retries = &mesh.Retries{Attempts: 2, On: []string{"5xx"}, PerTry: time.Second}
	upstream := envoytest.NewUpstream(t, nil)
	upstream.Handle(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	e := startGateway(t, shop(retried, route("once", "/once")), map[string][]instance{"orders": plain(upstream)})
	base := "http://" + e.Address("gateway")
	for path, attempts := range map[string]int{"/retried": 3, "/once": 1} {
		if got := get(t, base+path); got.status != http.StatusInternalServerError {
			t.Errorf("%s: status %d", path, got.status)
		}
		if n := upstream.Count(path); n != attempts {
			t.Errorf("%s: %d attempts, want %d", path, n, attempts)
		}
	}
}

// An instance that is gone before the registry says so costs no request.
func TestDeadInstanceIsPassedBy(t *testing.T) {
	t.Parallel()
	alive, dead := envoytest.NewUpstream(t, nil), envoytest.NewUpstream(t, nil)
	instances := plain(alive, dead)
	e := startGateway(t, shop(route("all", "/**")), map[string][]instance{"orders": instances})
	dead.Stop()
	base := "http://" + e.Address("gateway")
	for i := range 30 {
		if got := send(t, http.MethodPost, base+"/"); got.status != http.StatusOK {
			t.Fatalf("request %d: status %d", i, got.status)
		}
	}
	if e.Stat("cluster.orders.upstream_rq_retry") == 0 {
		t.Error("the dead instance was never tried")
	}
}

// An instance that leaves the registry while it works finishes what it has.
func TestLeavingInstanceFinishes(t *testing.T) {
	t.Parallel()
	staying, leaving := envoytest.NewUpstream(t, nil), envoytest.NewUpstream(t, nil)
	working := make(chan struct{}, 1)
	finish, open := gate(t)
	leaving.Handle(func(http.ResponseWriter, *http.Request) {
		working <- struct{}{}
		<-finish
	})
	m := shop(route("all", "/**"))
	e := startGateway(t, m, map[string][]instance{"orders": plain(leaving)})
	base := "http://" + e.Address("gateway")
	status := make(chan int, 1)
	go func() { status <- get(t, base+"/").status }()
	<-working

	updates := e.Stat("cluster.orders.update_success")
	e.agent.Set(resourcev3.EndpointType, "orders", envoy.Endpoints("orders", false, plain(staying)))
	e.agent.Push()
	e.Await("cluster.orders.update_success", updates+1)
	if got := get(t, base+"/"); got.status != http.StatusOK || staying.Count("/") != 1 {
		t.Errorf("the instance that stays was not asked: status %d", got.status)
	}
	open()
	if got := <-status; got != http.StatusOK {
		t.Errorf("the request under way: status %d", got)
	}
}

// gate blocks who receives from it, until it is opened or the test ends.
func gate(t *testing.T) (closed <-chan struct{}, open func()) {
	c := make(chan struct{})
	open = sync.OnceFunc(func() { close(c) })
	t.Cleanup(open)
	return c, open
}

// A route whose upstream hangs overflows its own limits while the next route of
// the same service works.
func TestOverflowStaysInItsRoute(t *testing.T) {
	t.Parallel()
	hanging := route("hanging", "/hanging")
	hanging.CircuitBreaker = &mesh.CircuitBreaker{MaxRequests: new(uint32(2))}
	upstream := envoytest.NewUpstream(t, nil)
	release, open := gate(t)
	upstream.Handle(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hanging" {
			<-release
		}
	})
	e := startGateway(t, shop(hanging, route("fine", "/fine")), map[string][]instance{"orders": plain(upstream)})
	base := "http://" + e.Address("gateway")

	statuses := make(chan int, 10)
	var requests sync.WaitGroup
	for range cap(statuses) {
		requests.Go(func() { statuses <- get(t, base+"/hanging").status })
	}
	e.Await("cluster.orders~hanging.upstream_rq_active_overflow", cap(statuses)-2)
	if got := get(t, base+"/fine"); got.status != http.StatusOK {
		t.Errorf("the next route: status %d", got.status)
	}
	open()
	requests.Wait()
	close(statuses)
	counts := map[int]int{}
	for status := range statuses {
		counts[status]++
	}
	if counts[http.StatusServiceUnavailable] != cap(statuses)-2 || counts[http.StatusOK] != 2 {
		t.Errorf("statuses %v, want twice 200 and the rest 503", counts)
	}
}

// With three instances, and with all of them, ejection really ejects.
func TestOutlierEjection(t *testing.T) {
	t.Parallel()
	guarded := route("guarded", "/guarded")
	guarded.CircuitBreaker = &mesh.CircuitBreaker{
		Consecutive5xx: new(uint32(3)), EjectFor: 2 * time.Second, MaxEjectFor: 2 * time.Second,
	}
	upstreams := []*envoytest.Upstream{envoytest.NewUpstream(t, nil), envoytest.NewUpstream(t, nil), envoytest.NewUpstream(t, nil)}
	fail := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
	e := startGateway(t, shop(guarded), map[string][]instance{"orders": plain(upstreams...)})
	base := "http://" + e.Address("gateway")
	const ejected = "cluster.orders~guarded.outlier_detection.ejections_active"

	upstreams[0].Handle(fail)
	await(t, "the failing instance is ejected", func() bool {
		get(t, base+"/guarded")
		return e.Stat(ejected) > 0
	})
	failed := upstreams[0].Count("/")
	if failed != 3 {
		t.Errorf("ejected after %d failures, want 3", failed)
	}
	for range 30 {
		if got := get(t, base+"/guarded"); got.status != http.StatusOK && upstreams[0].Count("/") == failed {
			t.Fatalf("with one of three ejected: status %d", got.status)
		}
	}

	for _, u := range upstreams {
		u.Handle(fail)
	}
	await(t, "all are ejected", func() bool { return get(t, base+"/guarded").status == http.StatusServiceUnavailable })
	if n := e.Stat(ejected); n != 3 {
		t.Errorf("%d of 3 failing instances are ejected", n)
	}
	for _, u := range upstreams {
		u.Handle(func(http.ResponseWriter, *http.Request) {})
	}
	await(t, "an instance comes back", func() bool { return get(t, base+"/guarded").status == http.StatusOK })
}

func TestWithoutDecisionNothingPasses(t *testing.T) {
	t.Parallel()
	upstream := envoytest.NewUpstream(t, nil)
	e := startGateway(t, shop(route("all", "/**")), map[string][]instance{"orders": plain(upstream)})
	base := "http://" + e.Address("gateway")
	want := func(what string, status int) {
		t.Helper()
		if got := get(t, base+"/"); got.status != status {
			t.Errorf("%s: status %d, want %d", what, got.status, status)
		}
	}
	e.agent.Authorize(func(*authv3.CheckRequest) *authv3.CheckResponse { return envoytest.Deny(403) })
	want("denied", http.StatusForbidden)
	answered := make(chan struct{})
	e.agent.Authorize(func(*authv3.CheckRequest) *authv3.CheckResponse {
		<-answered
		return envoytest.Allow("", nil)
	})
	want("late", http.StatusServiceUnavailable)
	close(answered)
	e.agent.Authorize(func(*authv3.CheckRequest) *authv3.CheckResponse {
		return envoytest.Allow("not a\nheader value", nil)
	})
	if got := get(t, base+"/"); got.status < 400 {
		t.Errorf("an answer that is no HTTP: status %d", got.status)
	}
	e.agent.Stop()
	want("dead", http.StatusServiceUnavailable)
	if n := upstream.Count("/"); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}
