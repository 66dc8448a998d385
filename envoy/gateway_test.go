package envoy_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/internal/envoytest"
)

func TestGatewayHeaders(t *testing.T) {
	t.Parallel()
	upstream := envoytest.NewUpstream(t, nil)
	e := startGateway(t, shop(route("all", "/**")), map[string][]instance{"orders": plain(upstream)})
	base := "http://" + e.Address("gateway")
	e.agent.Authorize(func(*authv3.CheckRequest) *authv3.CheckResponse { return envoytest.Allow("", nil) })

	spoofed := []string{
		"Txn-Token", "Txn.Token", "txn-token",
		"X-Forwarded-Client-Cert",
		"X-Envoy-Internal", "X-Envoy-Original-Path", "X-Envoy-Original-Url", "X-Envoy-Decorator-Operation",
		"X-Envoy-Retry-On", "X-Envoy-Upstream-Rq-Timeout-Ms", "X-Envoy-Max-Retries", "X-Envoy-Auth-Partial-Body",
		"X-Envoy-Auth-Failure-Mode-Allowed", "X-Envoy-External-Address", "X-Envoy-Anything",
		"Forwarded", "X-Real-Ip", "True-Client-Ip", "X-Forwarded-Host", "X-Forwarded-Uri", "X-Forwarded-Prefix",
		"X-Forwarded-Port", "X-Forwarded-Method", "X-Original-Url", "X-Original-Path", "X-Rewrite-Url",
		"X-Http-Method-Override", "X-Method-Override", "X-Tenant", "X-Tenant-Id",
	}
	headers := []string{"X-Forwarded-For", "10.0.0.1", "X-Forwarded-Proto", "https", "X-Request-Id", "mine", "X-Kept", "kept"}
	for _, name := range spoofed {
		headers = append(headers, name, "1")
	}
	got := get(t, base+"/a", headers...)
	if got.status != http.StatusOK {
		t.Fatalf("status %d: %s", got.status, got.body)
	}
	received := upstream.Received()[0].Header
	checked := map[string]bool{}
	for _, h := range e.agent.Checks()[0].GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
		checked[h.GetKey()] = true
	}
	for _, name := range spoofed {
		if received.Get(name) != "" {
			t.Errorf("%s reached the upstream", name)
		}
		if checked[strings.ToLower(name)] && name != "X-Envoy-External-Address" { // Envoy's own
			t.Errorf("%s reached ext_authz", name)
		}
	}
	if received.Get("X-Kept") != "kept" {
		t.Error("a harmless header was removed")
	}
	// Envoy writes its own address for that of a peer on loopback.
	if _, err := netip.ParseAddr(received.Get("X-Forwarded-For")); err != nil || received.Get("X-Forwarded-For") == "10.0.0.1" {
		t.Errorf("X-Forwarded-For is %q, want the peer alone", received.Get("X-Forwarded-For"))
	}
	if p := received.Get("X-Forwarded-Proto"); p != "http" {
		t.Errorf("X-Forwarded-Proto is %q, want http", p)
	}
	id := received.Get("X-Request-Id")
	if id == "" || id == "mine" || id != got.header.Get("X-Request-Id") {
		t.Errorf("X-Request-Id is %q upstream and %q downstream", id, got.header.Get("X-Request-Id"))
	}
	if e := e.AccessLog(id); e["path"] != "/a" || e["route"] != "orders/orders/all" || e["status"] != float64(200) {
		t.Errorf("access log: %v", e)
	}
}

// Rows H07 and H08: what comes twice is seen twice. Of the headers that Envoy
// itself knows it makes one, which still says both.
func TestExtAuthzSeesDuplicates(t *testing.T) {
	t.Parallel()
	e := startGateway(t, shop(route("all", "/**")), nil)
	get(t, "http://"+e.Address("gateway")+"/",
		"Authorization", "Bearer a", "Authorization", "Bearer b", "X-Role", "user", "X-Role", "admin")
	got := map[string][]string{}
	for _, h := range e.agent.Checks()[0].GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
		got[h.GetKey()] = append(got[h.GetKey()], string(h.GetRawValue()))
	}
	for name, want := range map[string][]string{"authorization": {"Bearer a,Bearer b"}, "x-role": {"user", "admin"}} {
		if diff := cmp.Diff(want, got[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestGatewayRefusesHeadersWithUnderscores(t *testing.T) {
	t.Parallel()
	upstream := envoytest.NewUpstream(t, nil)
	e := startGateway(t, shop(route("all", "/**")), map[string][]instance{"orders": plain(upstream)})
	for _, name := range []string{"x_role", "txn_token", "content_length"} {
		if got := get(t, "http://"+e.Address("gateway")+"/", name, "0"); got.status != http.StatusBadRequest {
			t.Errorf("%s: status %d, want 400", name, got.status)
		}
	}
	if n := upstream.Count("/"); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

func TestGatewayAnswersSayNothingOfTheInside(t *testing.T) {
	t.Parallel()
	upstream := envoytest.NewUpstream(t, nil)
	upstream.Handle(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Txn-Token", "X-Envoy-Upstream-Service-Time", "X-Powered-By"} {
			w.Header().Set(name, "1")
		}
		w.Header().Set("Server", "orders/1.2.3")
		w.Header().Set("X-Kept", "kept")
	})
	e := startGateway(t, shop(route("all", "/**")), map[string][]instance{"orders": plain(upstream)})
	base := "http://" + e.Address("gateway")
	got := get(t, base+"/").header
	for _, name := range []string{"Txn-Token", "X-Powered-By"} {
		if got.Get(name) != "" {
			t.Errorf("%s reached the client", name)
		}
	}
	for name := range got {
		if strings.HasPrefix(name, "X-Envoy-") {
			t.Errorf("%s reached the client", name)
		}
	}
	if got.Get("Server") != "chancery" || got.Get("X-Kept") != "kept" {
		t.Errorf("answer: %v", got)
	}
	upstream.Stop()
	if got := get(t, base+"/"); got.status != http.StatusServiceUnavailable || got.body != "service unavailable\n" {
		t.Errorf("without upstream: %d %q", got.status, got.body)
	}
}

// Rows P01 to P11 of the attacks: what is ambiguous is refused, by whomever,
// and reaches neither ext_authz nor the upstream.
func TestGatewayRefusesAmbiguousPaths(t *testing.T) {
	t.Parallel()
	upstream := envoytest.NewUpstream(t, nil)
	e := startGateway(t, shop(route("all", "/**")), map[string][]instance{"orders": plain(upstream)})
	address := e.Address("gateway")
	refused := []string{
		"//admin", "/public//admin", "/public/..//admin", "///admin", "//evil.test/admin",
		"/public/../admin", "/public/./../admin", "/public/%2e%2e/admin", "/public/%2E./admin", "/public/.%2e/admin", "/xyz%30..//abc",
		"/public%2f..%2fadmin", "/public%5c..%5cadmin", "/%2fadmin", "/admin%2fsecret", `\admin`, `/public\..\admin`, "/%5Cadmin%2f%5c%2F%2e%2e%2fadmin",
		"/admin;x=y", "/public/..;/admin", "/public/..;foo=bar/admin", "/admin;/secret", "/;/admin", "/admin;a=b/secret",
		"/admin#x", "/public#/../admin", "/admin%23x", "/admin?#",
		"/admin%09", "/admin%00", "/%61dmin", "/adm%69n",
		"/%252e%252e/admin", "/%252fadmin", "/%c0%ae%c0%ae/admin", "/%c0%af", "/%C0%AF", "/%c1%9cadmin", "/..%c0%af", "/%u002e%u002e/",
		"http://api.test/admin", "*", "admin", "/a\x80", "/a|b", "/a\"b",
	}
	for _, target := range refused {
		if status := rawStatus(t, address, "GET", target); status != 400 && status != 404 {
			t.Errorf("%q: status %d, want 400", target, status)
		}
	}
	if n := len(upstream.Received()) + len(e.agent.Checks()); n != 0 {
		t.Errorf("%d ambiguous requests reached ext_authz or the upstream", n)
	}
	taken := []string{"/", "/admin", "/admin/", "/public?x=/../admin", "/admin?", "/admin??a=%2f", "/admin,a=b", "/a%20b", "/%C3%A9", "/x/y.z/~u_v-w"}
	for i, target := range taken {
		if status := rawStatus(t, address, "GET", target); status != 200 {
			t.Errorf("%q: status %d, want 200", target, status)
		}
		checks, received := e.agent.Checks(), upstream.Received()
		if len(checks) != i+1 || len(received) != i+1 {
			t.Fatalf("%q: %d checks, %d received", target, len(checks), len(received))
		}
		if path := checks[i].GetAttributes().GetRequest().GetHttp().GetPath(); path != target || received[i].Target != target {
			t.Errorf("%q: ext_authz saw %q, the upstream %q", target, path, received[i].Target)
		}
	}
}

// rawStatus sends a request target that net/http would not.
func rawStatus(t *testing.T, address, method, target string) int {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n", method, target); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%q: %v", target, err)
	}
	defer response.Body.Close()
	return response.StatusCode
}

func TestGatewayRoutes(t *testing.T) {
	t.Parallel()
	m := shop(route("list", "/orders"), route("one", "/orders/{id}"), route("internal", "/internal"))
	m.Services[0].Routes[0].Match.Method = "GET"
	m.Services[0].Routes[2].Callers = []string{"batch"}
	g := m.Gateways[0]
	g.Routes[0].Match.Path = patternOf("/v1/{service}/**")
	g.Routes[0].Rewrite = patternOf("/**")
	g.Routes[0].To = "{service}"
	fallback := g.Routes[0]
	fallback.Name, fallback.Match.Path, fallback.Rewrite, fallback.To = "rest", patternOf("/v1/**"), patternOf("/orders/**"), "orders"
	g.Routes = append(g.Routes, fallback)
	upstream := envoytest.NewUpstream(t, nil)
	e := startGateway(t, m, map[string][]instance{"orders": plain(upstream)})
	base := "http://" + e.Address("gateway")

	tests := []struct {
		name, method, target string
		status               int
		received, route      string
	}{
		{"rewrites", "GET", "/v1/orders/orders?q=/../x", 200, "/orders?q=/../x", "orders /v1/{service}/** to {service}/**"},
		{"binds variables", "DELETE", "/v1/orders/orders/7", 200, "/orders/7", "orders /v1/{service}/** to {service}/**"},
		{"keeps to the method", "POST", "/v1/orders/orders", 404, "", ""},
		{"refuses routes for others", "GET", "/v1/orders/internal", 404, "", ""},
		{"does not try the next route", "GET", "/v1/orders", 404, "", ""},
		{"takes the next route for what is no service", "GET", "/v1/payments", 200, "/orders/payments", "rest /v1/** to orders/orders/**"},
		{"rewrites the root", "GET", "/v1", 200, "/orders", "rest /v1/** to orders/orders/**"},
		{"has an end", "GET", "/v1/a/b", 404, "", ""},
		{"has an end beside all routes", "GET", "/v2", 404, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			checks, received := len(e.agent.Checks()), len(upstream.Received())
			if got := send(t, tt.method, base+tt.target); got.status != tt.status {
				t.Fatalf("status %d, want %d", got.status, tt.status)
			}
			if tt.status != 200 {
				if len(e.agent.Checks()) != checks || len(upstream.Received()) != received {
					t.Error("the request went on")
				}
				return
			}
			if got := upstream.Received()[received].Target; got != tt.received {
				t.Errorf("the upstream saw %q, want %q", got, tt.received)
			}
			want := map[string]string{"policy": "gateway/public", "route": tt.route}
			if diff := cmp.Diff(want, e.agent.Checks()[checks].GetAttributes().GetContextExtensions()); diff != "" {
				t.Errorf("context extensions (-want +got):\n%s", diff)
			}
		})
	}
}
