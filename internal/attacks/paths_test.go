package attacks_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// pathAttacks are targets that lead a user who is no admin to /admin, if somebody
// reads them another way than somebody else. By attack.
var pathAttacks = map[string][]string{
	"P01": {"//admin", "/public//admin", "/public/..//admin", "///admin", "//evil.test/admin", "//admin/x"},
	"P02": {
		"/public/../admin", "/public/./../admin", "/public/%2e%2e/admin", "/public/%2E./admin", "/public/.%2e/admin", "/xyz%30..//abc",
		"/public/../admin/secret",
	},
	"P03": {
		"/public%2f..%2fadmin", "/public%5c..%5cadmin", "/%2fadmin", "/admin%2fsecret", `\admin`, `/public\..\admin`,
		"/%5Cadmin%2f%5c%2F%2e%2e%2fadmin",
	},
	"P04": {
		"/admin;x=y", "/public/..;/admin", "/public/..;foo=bar/admin", "/admin;/secret", "/;/admin", "/admin;a=b/secret", "/admin,a=b",
	},
	"P05": {"/admin#x", "/public#/../admin", "/admin%23x", "/admin?#"},
	"P06": {"/admin?", "/admin??", "/admin?x=/public/ok"},
	"P07": {
		"/admin/", "/admin.", "/admin%20", "/admin%09", "/admin%00", "/admin..", "/ADMIN", "/Admin", "/%61dmin", "/adm%69n", "/admin*",
		// What may come encoded is the same to a route, and to a rule against it.
		"/files/@private/x", "/files/%40private/x", "/files/@private", "/files/%40private%2B", "/files/%2540private", "/files/@%70rivate",
		"/files/a%3Ab+c", "/files/a:b%2Bc/x", "/@home/x", "/%40home/x", "/%40home",
	},
	"P08": {
		"/%252e%252e/admin", "/%252fadmin", "/%c0%ae%c0%ae/admin", "/%c0%af", "/%c1%9cadmin", "/0x2e0x2e/admin", "/..%c0%af", "/%u002e%u002e/",
	},
	"P10": {"http://api.test/admin", "https://public.test/admin", "http://api.test"},
	"P11": {"*", "", "admin", "?x", "admin?/public/"},
	"P14": {"/administrator", "/adm/x", "/admins", "/open-anyway", "/publicity", "/svc-a2"},
}

// Attack rows P01 to P08, P10, P11, P14: a route, a policy and a service read
// one path.
func TestPaths(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user, admin := e.token(), e.admin()
	e.attack("an admin, encoded", raw{target: "/%40home/x", token: admin}, safe{allowed: true, user: "root"})
	e.attack("a user, elsewhere", raw{target: "/files/%40public%2B", token: user}, safe{allowed: true, user: "alice"})
	e.attack("an admin", raw{target: "/admin", token: admin}, safe{allowed: true, user: "root"})
	e.attack("an admin, below", raw{target: "/admin/secret", token: admin}, safe{allowed: true, user: "root"})
	e.attack("a user", raw{target: "/admin", token: user}, refusedWith(403))
	for id, targets := range pathAttacks {
		for _, target := range targets {
			for _, token := range []string{user, ""} {
				e.attack(id+" "+target, raw{target: target, token: token}, refusedWith(400, 401, 403, 404))
			}
		}
	}
	// What is no attack is seen by the service as it was sent.
	for _, target := range []string{"/public?x=/../admin", "/public?/admin", "/public/a%20b?", "/public/%40a%3Ab%2Bc", "/public/a,b", "/public/%C3%A9??"} {
		e.attack("P06 "+target, raw{target: target}, safe{allowed: true})
		received := e.upstream.Received()
		if got := received[len(received)-1].Target; got != target {
			t.Errorf("P06: %q became %q", target, got)
		}
		if path, _, _ := strings.Cut(target, "?"); !strings.Contains(e.lastRecord(), fmt.Sprintf(`"path":%q`, path)) {
			t.Errorf("P06: %q is recorded as %s", target, e.lastRecord())
		}
	}
	e.good(t)
}

// Attack row P09: each byte, percent-encoded, after /admin.
func TestEachEncodedByte(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user := e.token()
	for c := 1; c < 256; c++ {
		for _, format := range []string{"/admin%%%02x", "/admin%%%02X"} {
			target := fmt.Sprintf(format, c)
			e.attack("P09 "+target, raw{target: target, token: user}, refusedWith(400, 403, 404))
		}
	}
	if n := e.upstream.Count("/"); n != 0 {
		t.Errorf("P09: %d requests reached the service", n)
	}
}

// Attack row P10 with Host, and P12: who is asked decides nothing, since all hosts
// have the same routes; a rule on the host sees the whole of it.
func TestHosts(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user := e.token()
	e.attack("P12 itself", raw{target: "/host/x", token: user}, safe{allowed: true, user: "alice"})
	for _, host := range []string{
		"api.test:8443", "API.TEST", "api.test.", "api.test:", "api.test:443x", "api.test@evil", "evil.test", "api.test ", "xn--pi-7ka.test",
		"\u0430pi.test", "api.test/admin", "api.test#", "api.test?x", "[::1]", "api.test,evil.test", `"api.test"`,
	} {
		want := refusedWith(400, 403, 404)
		if slices.Contains([]string{"api.test:8443", "API.TEST", "api.test.", "api.test:", "api.test "}, host) {
			want = safe{allowed: true, user: "alice"} // the same host; space around a value is none of it
		}
		e.attack("P12 "+host, raw{target: "/host/x", host: host, token: user}, want)
		e.attack("P12 admin of "+host, raw{target: "/admin", host: host, token: user}, refusedWith(400, 403, 404))
	}
	e.attack("P12 another than the one refused", raw{target: "/no-host/x", token: user}, safe{allowed: true, user: "alice"})
	for _, host := range []string{
		"internal.test", "INTERNAL.test", "internal.test:443", "internal.test.", "Internal.Test.:8443", "internal.test:", "internal.test:x", "internal.test..",
		"internal.test@evil", "internal.te\u017ft", "internal%2Etest",
	} {
		e.attack("P12 not to "+host, raw{target: "/no-host/x", host: host, token: user}, refusedWith(400, 403, 404))
	}
	e.attack("P12 two hosts", raw{target: "/host/x", token: user, headers: []string{"Host: evil.test"}}, refusedWith(400, 403))
	e.attack("P12 two hosts, the other first", raw{target: "/host/x", host: "evil.test", token: user, headers: []string{"Host: api.test"}}, refusedWith(400, 403))
	e.attack("P10 absolute", raw{target: "http://api.test/admin", host: "public.test", token: user}, refusedWith(400, 403, 404))
	for _, text := range []string{
		"GET /host/x HTTP/1.1\r\nAuthorization: Bearer " + user + "\r\nConnection: close\r\n\r\n",
		"GET /host/x HTTP/1.0\r\nAuthorization: Bearer " + user + "\r\n\r\n",
	} {
		before := e.seen()
		status := 0
		if statuses := e.exchange(text); len(statuses) > 0 {
			status = statuses[0]
		}
		e.judge("P12 no host", before, status, refusedWith(0, 400, 403, 404, 426))
	}
	e.good(t)
}

// Attack row P13: no other method is meant than the one that is sent.
func TestMethods(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user := e.token()
	for _, method := range []string{"get", "Get", "FOO", "TRACE", "HEAD", "POST", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "GETX", "G"} {
		// A route for GET, which HEAD is too, and a rule on the method.
		want := refusedWith(400, 403, 404, 405)
		if method == http.MethodHead {
			want = safe{allowed: true, user: "alice"}
		}
		e.attack("P13 "+method, raw{method: method, target: "/read/x", token: user}, want)
		e.attack("P13 rule on "+method, raw{method: method, target: "/method/x", token: user}, refusedWith(400, 403, 405))
	}
	for _, method := range []string{"GET", "HEAD"} {
		e.attack("P13 what a rule on GET refuses, "+method, raw{method: method, target: "/records/x", token: user}, refusedWith(403))
	}
	e.attack("P13 what it does not", raw{method: "DELETE", target: "/records/x", token: user}, safe{allowed: true, user: "alice"})
	for _, header := range []string{
		"X-HTTP-Method-Override: DELETE", "X-Method-Override: DELETE", "X-HTTP-Method: DELETE", "_method: DELETE", "X-Http-Method-Override: PUT",
	} {
		want := safe{allowed: true, user: "alice"}
		if strings.HasPrefix(header, "_") {
			want = refusedWith(400) // H10
		}
		e.attack("P13 "+header, raw{target: "/read/x", token: user, headers: []string{header}}, want)
		name, _, _ := strings.Cut(header, ":")
		for _, received := range e.upstream.Received() {
			if received.Header.Get(name) != "" {
				t.Errorf("P13: %s reached the service", name)
			}
		}
	}
	e.attack("P13 in the query", raw{target: "/read/x?_method=DELETE", token: user}, safe{allowed: true, user: "alice"})
	e.good(t)
}

// Attack row P16: what names have of regular expressions is text.
func TestNamesAreNoExpressions(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user := e.token()
	e.attack("P16 itself", raw{target: "/v1.0/x", token: user}, safe{allowed: true, user: "alice"})
	for _, target := range []string{"/v1x0/x", "/v1/0/x", "/v1%2E0/x", "/v1.0/x/y", "/v1.0", "/v1.0/", "/v10/x"} {
		e.attack("P16 "+target, raw{target: target, token: user}, refusedWith(400, 404))
	}
}

// Attack row P17: length costs its sender, and nobody else.
func TestLongPaths(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user := e.token()
	for name, target := range map[string]string{
		"8 KiB":         "/public/" + strings.Repeat("a", 8<<10),
		"64 KiB":        "/public/" + strings.Repeat("a", 64<<10),
		"1 MiB":         "/public/" + strings.Repeat("a", 1<<20),
		"10000 deep":    "/public" + strings.Repeat("/a", 10_000),
		"10000 queries": "/public?" + strings.Repeat("a=b&", 10_000),
		"escapes":       "/public/" + strings.Repeat("%C3%A9", 1<<10),
	} {
		began := time.Now()
		want := refusedWith(0, 400, 413, 414, 431)
		want.allowed = true
		before := e.seen()
		status := e.send(raw{target: target})
		e.judge("P17 "+name, before, status, want)
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("P17 %s: took %v", name, took)
		}
		if len(target) > 60<<10 && status == http.StatusOK {
			t.Errorf("P17 %s: allowed", name)
		}
	}
	for _, target := range []string{"/admin/" + strings.Repeat("a", 8<<10), "/admin" + strings.Repeat("/a", 10_000)} {
		e.attack("P17 admin", raw{target: target, token: user}, refusedWith(0, 400, 403, 414, 431))
	}
	e.good(t)
}

// Attack row P18: no path is repaired, and nobody is sent to a repaired one.
func TestNothingIsRedirected(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	for _, kind := range []string{"text/html", "application/grpc"} {
		for _, target := range []string{"/public%2fadmin", "/public/../admin", "//admin", "/admin%5Cx"} {
			e.attack("P18 "+target, raw{method: "POST", target: target, headers: []string{"Content-Type: " + kind, "Content-Length: 0"}}, refusedWith(200, 400))
			if n := e.upstream.Count("/"); n != 0 {
				t.Errorf("P18 %s: reached the service", target)
			}
		}
	}
}

// Attack row R10: what a credential says is never part of an expression.
func TestValuesAreNoExpressions(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	for _, value := range []string{
		`admins' || true || '`, `admins" || true || "`, `') || true || ('`, "admins\\u0027", "{{admins}}", "${admins}", "admin", "true", "*", "admin*", ".*",
	} {
		token := e.token("groups", []string{value}, "tenant", "acme", "sub", value)
		e.attack("R10 "+value, raw{target: "/admin", token: token}, refusedWith(401, 403))
		e.attack("R10 tenant "+value, raw{target: "/admin", token: e.token("tenant", value)}, refusedWith(401, 403))
		e.attack("R10 header "+value, raw{target: "/role/x", token: e.token(), headers: []string{"X-Role: admin", "X-Role: " + value}}, refusedWith(400, 403))
	}
}
