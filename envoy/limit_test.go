package envoy_test

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/chancery-mesh/chancery/internal/envoytest"
	"github.com/chancery-mesh/chancery/mesh"
)

// startLimited starts a gateway whose one route has a limit. A request is of
// the tenant that its header `tenant` names.
func startLimited(t *testing.T, limit mesh.RateLimit) (*envoytest.Upstream, string) {
	t.Helper()
	m := shop(route("one", "/one"), route("two", "/two/{id}"), route("three", "/free"))
	free := m.Gateways[0].Routes[0]
	free.Name, free.Match.Path = "free", patternOf("/free")
	m.Gateways[0].Routes[0].RateLimit = &limit
	m.Gateways[0].Routes = append([]mesh.GatewayRoute{free}, m.Gateways[0].Routes...)
	upstream := envoytest.NewUpstream(t, nil)
	e := startGateway(t, m, map[string][]instance{"orders": plain(upstream)})
	e.agent.Authorize(func(r *authv3.CheckRequest) *authv3.CheckResponse {
		metadata := map[string]string{}
		for _, h := range r.GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
			if h.GetKey() == "tenant" {
				metadata["tenant"] = string(h.GetRawValue())
			}
		}
		return envoytest.Allow("", metadata)
	})
	return upstream, "http://" + e.Address("gateway")
}

func TestRateLimitByTenant(t *testing.T) {
	t.Parallel()
	limit := mesh.RateLimit{Requests: 3, Per: time.Hour, Burst: 3, By: []mesh.RateLimitKey{mesh.ByTenant}}
	upstream, base := startLimited(t, limit)

	// More tenants than the 20 that Envoy would remember, in turn.
	const tenants = 30
	for round := range 5 {
		for i := range tenants {
			want := http.StatusOK
			if round >= 3 {
				want = http.StatusTooManyRequests
			}
			// One limit counts, whatever the gateway's route leads to.
			target := []string{"/one", "/two/1"}[round%2]
			if got := get(t, base+target, "tenant", strconv.Itoa(i)); got.status != want {
				t.Fatalf("round %d, tenant %d: status %d, want %d", round, i, got.status, want)
			}
		}
	}
	if n := upstream.Count("/"); n != 3*tenants {
		t.Errorf("%d requests reached the upstream, want %d", n, 3*tenants)
	}
	if got := get(t, base+"/free", "tenant", "0"); got.status != http.StatusOK {
		t.Errorf("a route without a limit: status %d", got.status)
	}
	if got := get(t, base+"/nothing", "tenant", "0"); got.status != http.StatusNotFound {
		t.Errorf("no route: status %d", got.status)
	}
}

func TestRateLimitSaysWhenToRetry(t *testing.T) {
	t.Parallel()
	limit := mesh.RateLimit{Requests: 1, Per: time.Hour, Burst: 1}
	_, base := startLimited(t, limit)
	if got := get(t, base+"/one"); got.header.Get("Retry-After") != "" || got.header.Get("X-Ratelimit-Remaining") != "0" {
		t.Errorf("within the limit: %v", got.header)
	}
	got := get(t, base+"/one")
	after, err := strconv.Atoi(got.header.Get("Retry-After"))
	if got.status != http.StatusTooManyRequests || err != nil || after < 3500 || after > 3600 {
		t.Errorf("status %d, Retry-After %q, want 429 and about 3600", got.status, got.header.Get("Retry-After"))
	}
}

// A request without the key that a limit counts by is limited with the others
// that have none.
func TestRateLimitOfNoKey(t *testing.T) {
	t.Parallel()
	for _, by := range []mesh.RateLimitKey{mesh.ByTenant, mesh.ByUser, mesh.ByClient, mesh.ByIP} {
		t.Run(string(by), func(t *testing.T) {
			limit := mesh.RateLimit{Requests: 2, Per: time.Hour, Burst: 2, By: []mesh.RateLimitKey{by}}
			_, base := startLimited(t, limit)
			statuses := []int{}
			for range 4 {
				statuses = append(statuses, get(t, base+"/one", "tenant", "").status)
			}
			if want := "[200 200 429 429]"; fmt.Sprint(statuses) != want {
				t.Errorf("statuses %v, want %s", statuses, want)
			}
		})
	}
}

func TestPeerLimitComesBeforeExtAuthz(t *testing.T) {
	t.Parallel()
	m := shop(route("all", "/**"))
	m.Gateways[0].PeerLimit = mesh.RateLimit{Requests: 3, Per: time.Hour, Burst: 3}
	upstream := envoytest.NewUpstream(t, nil)
	e := startGateway(t, m, map[string][]instance{"orders": plain(upstream)})
	e.agent.Authorize(func(*authv3.CheckRequest) *authv3.CheckResponse { return envoytest.Deny(401) })
	base := "http://" + e.Address("gateway")
	for i := range 6 {
		want := http.StatusUnauthorized
		if i >= 3 {
			want = http.StatusTooManyRequests
		}
		got := get(t, base+"/", "X-Forwarded-For", fmt.Sprintf("10.0.0.%d", i))
		if got.status != want {
			t.Errorf("request %d: status %d, want %d", i, got.status, want)
		}
		if limited := got.header.Get("Retry-After") != ""; limited != (i >= 3) {
			t.Errorf("request %d: Retry-After %q", i, got.header.Get("Retry-After"))
		}
	}
	if n := len(e.agent.Checks()); n != 3 {
		t.Errorf("%d checks, want 3", n)
	}
}
