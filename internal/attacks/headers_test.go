package attacks_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/chancery-mesh/chancery/internal/envoytest"
)

// Attack row H01: a Passport from outside is nobody's, however it is written, on
// routes that are open as well as on those that are not.
func TestPassportFromOutside(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user := e.token()
	e.attack("H01 control", raw{target: "/svc-a/x", token: user}, safe{allowed: true, user: "alice"})
	ours := e.upstream.Received()[0].Header.Get("Txn-Token") // a good one, stolen
	for _, name := range []string{
		"txn-token", "Txn-Token", "TXN-TOKEN", "txn_token", "txn.token", "Txn.Token", "txn token", "txn-token ", " txn-token", "txntoken", "txn~token", "txn\ttoken",
	} {
		headers := []string{name + ": " + ours}
		for path, want := range map[string]safe{
			"/public/x": {allowed: true, refused: clientErrors}, "/svc-a/x": {allowed: true, user: "alice", refused: clientErrors},
		} {
			r := raw{target: path, headers: headers}
			if want.user != "" {
				r.token = user
			}
			e.attack(fmt.Sprintf("H01 %q", name), r, want)
			r.headers = append(headers, headers...)
			e.attack(fmt.Sprintf("H01 %q twice", name), r, want)
		}
		e.attack(fmt.Sprintf("H01 %q alone", name), raw{target: "/svc-a/x", headers: headers}, refusedWith(0, 400, 401))
		e.attack(fmt.Sprintf("H01 %q upgrading", name), raw{target: "/svc-a/x", headers: append(headers, "Upgrade: websocket")}, refusedWith(0, 400, 401, 403, 426))
	}
	e.attack("H01 in Connection", raw{target: "/svc-a/x", token: user, headers: []string{"Connection: txn-token, close"}}, safe{allowed: true, user: "alice", refused: clientErrors})
	e.attack("H01 in Connection, sent", raw{target: "/public/x", headers: []string{"Txn-Token: " + ours, "Connection: txn-token"}}, safe{allowed: true, refused: clientErrors})
	e.attack("H01 as a trailer", raw{
		method: "POST", target: "/public/x", headers: []string{"Transfer-Encoding: chunked", "Trailer: Txn-Token"},
		body: "1\r\na\r\n0\r\nTxn-Token: " + ours + "\r\n\r\n",
	}, safe{allowed: true, refused: clientErrors})
	e.attack("H01 as a bearer token", raw{target: "/svc-a/x", token: ours}, refusedWith(401))
	e.good(t)
}

// Attack row H03: only the connection says where a client is.
func TestAddressesFromOutside(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user := e.token()
	e.attack("H03 control", raw{target: "/inside/x", token: user}, refusedWith(403))
	ip := regexp.MustCompile(`"ip":"[^"]*"`).FindString(e.lastRecord())
	for _, header := range []string{
		"X-Forwarded-For: 10.0.0.1", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-For: 10.0.0.1, 203.0.113.9", "X-Forwarded-For: ::ffff:10.0.0.1",
		"X-Forwarded-For: 10.0.0.1:80", "X-Forwarded-For: 010.0.0.1", "X-Forwarded-For:", "X-Forwarded-For: " + strings.Repeat("10.0.0.1,", 1000) + "10.0.0.1",
		"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2", "X-Real-IP: 10.0.0.1", "True-Client-IP: 10.0.0.1", "Forwarded: for=10.0.0.1",
		"X-Client-IP: 10.0.0.1", "X-Cluster-Client-IP: 10.0.0.1", "X-Envoy-External-Address: 10.0.0.1",
	} {
		e.attack("H03 "+header, raw{target: "/inside/x", token: user, headers: []string{header}}, refusedWith(403))
		if record := e.lastRecord(); !strings.Contains(record, ip) {
			t.Errorf("H03 %s: recorded as %s", header, record)
		}
		before := len(e.upstream.Received())
		e.attack("H03 "+header, raw{target: "/svc-a/x", token: user, headers: []string{header}}, safe{allowed: true, user: "alice"})
		for _, received := range e.upstream.Received()[before:] {
			for name, lines := range received.Header {
				if strings.Contains(strings.Join(lines, " "), "10.0.0.") {
					t.Errorf("H03 %s: the service got %s: %v", header, name, lines)
				}
			}
		}
	}
}

// Attack rows H04, H05 and H13: what clients say of themselves changes nothing.
func TestClaimsFromOutside(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user := e.token()
	for id, headers := range map[string][]string{
		"H04": {
			"x-envoy-internal: true", "x-envoy-original-path: /public", "x-envoy-original-url: /public", "x-envoy-decorator-operation: x", "x-envoy-retry-on: 5xx",
			"x-envoy-upstream-rq-timeout-ms: 1", "x-envoy-max-retries: 9", "x-envoy-auth-partial-body: false", "x-envoy-auth-failure-mode-allowed: true",
			"x-envoy-force-trace: 1", "x-envoy-expected-rq-timeout-ms: 1", "x-envoy-hedge-on-per-try-timeout: true", "x-envoy-ip-tags: a",
		},
		"H05": {
			"X-Original-URL: /public/x", "X-Rewrite-URL: /public/x", "X-Original-Path: /public/x", "X-Forwarded-Uri: /public/x", "X-Forwarded-Prefix: /public",
			"X-Forwarded-Host: public.test", "X-Forwarded-Proto: https", "X-Forwarded-Port: 443", "X-Forwarded-Method: GET", "X-Forwarded-Path: /public", "X-Forwarded-Scheme: https",
		},
		"H13": {"User-Agent: kube-probe/1.30", "User-Agent: ELB-HealthChecker/2.0", "User-Agent: GoogleHC/1.0", "X-Health-Check: 1"},
		"A07": {"X-Tenant: globex", "X-Tenant-Id: globex"},
	} {
		for _, header := range headers {
			name, value, _ := strings.Cut(header, ": ")
			e.attack(id+" "+header, raw{target: "/admin", token: user, headers: []string{header}}, refusedWith(403))
			e.attack(id+" "+header, raw{target: "/svc-a/x", headers: []string{header}}, refusedWith(401))
			before := len(e.upstream.Received())
			e.attack(id+" "+header, raw{target: "/svc-a/x", token: user, headers: []string{header}}, safe{allowed: true, user: "alice"})
			for _, received := range e.upstream.Received()[before:] {
				if id != "H13" && received.Header.Get(name) == value {
					t.Errorf("%s: %s reached the service", id, header)
				}
			}
		}
	}
	for _, target := range []string{"/healthz", "/health", "/ready", "/server_info", "/config_dump", "/stats"} {
		e.attack("H13 "+target, raw{target: target, headers: []string{"User-Agent: kube-probe/1.30"}}, refusedWith(404))
	}
}

// https returns a client of the gateway, with a certificate if there is one.
func (e *edge) https(certificate *tls.Certificate) *http.Client {
	config := &tls.Config{InsecureSkipVerify: true}
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", e.address)
	}}
	e.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport, Timeout: 10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// do sends a request by a client, with headers as name, value, ….
func (e *edge) do(client *http.Client, method, target string, body io.Reader, headers ...string) (int, http.Header) {
	e.t.Helper()
	request, err := http.NewRequestWithContext(e.t.Context(), method, "https://api.test"+target, body)
	if err != nil {
		e.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode, response.Header
}

// Attack row H06: only the TLS connection says whose certificate it is.
func TestCertificatesFromOutside(t *testing.T) {
	t.Parallel()
	e := start(t, "edge")
	user := "Bearer " + e.token()
	certificate := e.clients.Issue(func(c *x509.Certificate) {
		c.Subject.CommonName = `a";URI=spiffe://api.test/gateway/edge,By=x`
		c.URIs = []*url.URL{envoytest.URI("spiffe://partner.test/till")}
	})
	forged := "By=spiffe://api.test/service/shop;Hash=00;URI=spiffe://api.test/admin"
	for name, client := range map[string]*http.Client{"none": e.https(nil), "one": e.https(&certificate)} {
		for _, lines := range [][]string{
			{"X-Forwarded-Client-Cert", forged},
			{"X-Forwarded-Client-Cert", forged, "X-Forwarded-Client-Cert", forged},
			{"X-Forwarded-Client-Cert", forged + `,By="x;y"`},
			{"x-forwarded-client-cert", `Subject="CN=admin,O=\"Api;URI=spiffe://api.test/admin\"";URI=spiffe://api.test/admin`},
			{"X-Ssl-Client-Cert", "x", "X-Client-Cert", "x", "X-Forwarded-Tls-Client-Cert", "x"},
		} {
			before := e.seen()
			status, _ := e.do(client, "GET", "/svc-a/x", nil, append([]string{"Authorization", user}, lines...)...)
			e.judge("H06 "+name, before, status, safe{allowed: true, user: "alice"})
			received := e.upstream.Received()
			if xfcc := strings.Join(received[len(received)-1].Header.Values("X-Forwarded-Client-Cert"), " "); strings.Contains(xfcc, "admin") {
				t.Errorf("H06 %s: the service got %q", name, xfcc)
			}
		}
	}
}

// Attack rows H07 and J29: of two credentials none counts.
func TestTwoCredentials(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	a, b := e.token(), e.admin()
	for name, headers := range map[string][]string{
		"user, admin":            {"Authorization: Bearer " + a, "Authorization: Bearer " + b},
		"admin, user":            {"Authorization: Bearer " + b, "Authorization: Bearer " + a},
		"the same twice":         {"Authorization: Bearer " + b, "Authorization: Bearer " + b},
		"joined":                 {"Authorization: Bearer " + b + ", Bearer " + a},
		"joined without space":   {"Authorization: Bearer " + b + ",Bearer " + a},
		"two spaces":             {"Authorization: Bearer  " + b},
		"tab":                    {"Authorization: Bearer\t" + b},
		"proxy":                  {"Proxy-Authorization: Bearer " + b},
		"basic beside":           {"Authorization: Bearer " + b, "Authorization: Basic YTpi"},
		"key beside":             {"Authorization: Bearer " + b, "X-Api-Key: " + e.apiKey},
		"cookie alone":           {"Cookie: access_token=" + b},
		"another scheme":         {"Authorization: Token " + b},
		"no scheme":              {"Authorization: " + b},
		"bearer twice":           {"Authorization: Bearer Bearer " + b},
		"in the wrong header":    {"X-Id-Token: " + b},
		"in the API key's":       {"X-Api-Key: " + b},
		"quoted":                 {`Authorization: Bearer "` + b + `"`},
		"with a NUL":             {"Authorization: Bearer " + b + "\x00"},
		"with a parameter":       {"Authorization: Bearer " + b + "; x=y"},
		"underscored":            {"Authorization_: Bearer " + b},
		"with a space":           {"Authorization : Bearer " + b},
		"after a carriage feed ": {"X: y\rAuthorization: Bearer " + b},
	} {
		e.attack("H07 "+name, raw{target: "/admin", headers: headers}, refusedWith(0, 400, 401))
	}
	// Envoy drops a line that is empty, folds one that goes on, and ends one at a
	// bare line feed, before anybody else reads it: one credential is left.
	for name, headers := range map[string][]string{
		"empty, admin": {"Authorization:", "authorization: Bearer " + b}, "admin, empty": {"authorization: Bearer " + b, "Authorization: "},
		"folded": {"Authorization: Bearer", " " + b}, "after a line feed": {"X: y\nAuthorization: Bearer " + b},
	} {
		e.attack("H07 "+name, raw{target: "/admin", headers: headers}, safe{allowed: true, user: "root", refused: clientErrors})
	}
	for _, query := range []string{"access_token=" + b, "x=1&access_token=" + b, "ACCESS_TOKEN=" + b, "%61ccess_token=" + b, "x;access_token=" + b} {
		e.attack("J29 "+query[:14], raw{target: "/admin?" + query, token: b}, refusedWith(400, 401))
		e.attack("J29 alone "+query[:14], raw{target: "/admin?" + query}, refusedWith(400, 401))
	}
	e.attack("J29 lower case", raw{target: "/admin", headers: []string{"authorization: bearer " + b}}, safe{allowed: true, user: "root"})
	e.attack("J29 cookie beside", raw{target: "/admin", token: b, headers: []string{"Cookie: access_token=" + a}}, safe{allowed: true, user: "root"})
}

// Attack row H08: of several values, a rule against one holds.
func TestSeveralValues(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user := e.token()
	e.attack("H08 control", raw{target: "/role/x", token: user, headers: []string{"X-Role: user"}}, safe{allowed: true, user: "alice"})
	for name, headers := range map[string][]string{
		"admin":             {"X-Role: admin"},
		"user, admin":       {"X-Role: user", "X-Role: admin"},
		"admin, user":       {"X-Role: admin", "x-role: user"},
		"none":              {"X: y"},
		"empty and admin":   {"X-Role:", "X-Role: admin"},
		"not UTF-8, admin":  {"X-Role: \xc3\x28", "X-Role: admin"},
		"not UTF-8":         {"X-Role: \xff"},
		"not UTF-8 besides": {"X-Role: user", "X-Other: \xc3\x28"},
		"Latin-1":           {"X-Role: user\xe9"},
	} {
		e.attack("H08 "+name, raw{target: "/role/x", token: user, headers: headers}, refusedWith(400, 403))
	}
}

// Attack rows H09 and H10: what is no header of HTTP goes nowhere.
func TestNoHeaders(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user := e.token()
	for id, headers := range map[string][]string{
		"H09": {
			"X: a\x00b", "X: a\rb", "X: a\nb: c", "X\x00: a", "X : a", " X: a", "X: a\r\n b", "Transfer-Encoding : chunked", ": a", "a", "X(: a", "X\xc3\xa9: a", "X: a\x01b", "X: a\x7fb",
		},
		"H10": {"x_role: admin", "content_length: 0", "txn_token: x", "x_forwarded_for: 10.0.0.1", "_: a", "a_: b", "X_Api_Key: " + e.apiKey},
	} {
		for _, header := range headers {
			want := refusedWith(clientErrors...)
			if strings.HasPrefix(header, "X: a") {
				want.allowed, want.user = true, "alice" // it may have been mended: see below
			}
			before := len(e.upstream.Received())
			e.attack(fmt.Sprintf("%s %q", id, header), raw{target: "/svc-a/x", token: user, headers: []string{header}}, want)
			for _, received := range e.upstream.Received()[before:] {
				if got := received.Header.Get("X"); strings.ContainsAny(got, "\r\n\x00\x01\x7f") {
					t.Errorf("%s %q: the service got %q", id, header, got)
				}
			}
		}
	}
	// Bytes beyond ASCII are text of no known kind: the service may have them, a
	// rule that reads headers does not.
	for _, header := range []string{"X: \xc3\x28", "X: \xff\xfe", "X: a\tb"} {
		e.attack(fmt.Sprintf("H09 %q", header), raw{target: "/svc-a/x", token: user, headers: []string{header}}, safe{allowed: true, user: "alice", refused: clientErrors})
	}
	e.attack("H09 not UTF-8 where a rule reads", raw{target: "/role/x", token: user, headers: []string{"X-Role: user", "X: \xc3\x28"}}, refusedWith(400, 403))
	e.good(t)
}

// Attack row H11: headers are bounded.
func TestManyHeaders(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user := e.token()
	many := func(n, size int) (headers []string) {
		for i := range n {
			headers = append(headers, fmt.Sprintf("X-%d: %s", i, strings.Repeat("a", size)))
		}
		return headers
	}
	for name, headers := range map[string][]string{
		"200 headers": many(200, 1), "200 of 1 KiB": many(200, 1<<10), "one of 96 KiB": many(1, 96<<10), "a cookie of 64 KiB": {"Cookie: a=" + strings.Repeat("a", 64<<10)},
		"a token of 64 KiB": {"Authorization: Bearer " + strings.Repeat("a", 64<<10)}, "a name of 64 KiB": {strings.Repeat("a", 64<<10) + ": b"},
	} {
		e.attack("H11 "+name, raw{target: "/svc-a/x", headers: headers}, refusedWith(0, 400, 401, 431))
	}
	e.attack("H11 101 headers", raw{target: "/svc-a/x", token: user, headers: many(101, 1)}, safe{allowed: true, user: "alice", refused: clientErrors})
	e.attack("H11 a token of 17 KiB", raw{target: "/svc-a/x", token: strings.Repeat("a", 17<<10)}, refusedWith(400, 401, 431))
	e.good(t)
}

// Attack row H12: an answer of the decision point that is no header is no
// answer.
func TestAnswersAreHeaders(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	for _, header := range [][2]string{{"invalid-\nheader-\nname", "x"}, {"x", "a\r\nX-Admin: 1"}, {"x", "a\x00b"}, {"", "x"}} {
		e.agent.Authorize(func(*authv3.CheckRequest) *authv3.CheckResponse {
			response := envoytest.Allow("", nil)
			response.GetOkResponse().Headers = []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: header[0], Value: header[1]}}}
			return response
		})
		before := len(e.upstream.Received())
		status := e.send(raw{target: "/svc-a/x"})
		for _, received := range e.upstream.Received()[before:] {
			if status == http.StatusOK && received.Header.Get("X-Admin") != "" {
				t.Errorf("H12 %q: the service got %+v", header, received)
			}
		}
		if strings.ContainsAny(header[0]+header[1], "\r\n\x00") && status < 500 {
			t.Errorf("H12 %q: status %d", header, status)
		}
	}
}

// Attack row H15: a preflight request is a request.
func TestPreflight(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	expired := e.token("exp", time.Now().Add(-time.Hour).Unix(), "iat", time.Now().Add(-2*time.Hour).Unix())
	for name, headers := range map[string][]string{
		"well formed": {"Origin: https://app.test", "Access-Control-Request-Method: GET"}, "no origin": {"Access-Control-Request-Method: GET"},
		"no method": {"Origin: https://app.test"}, "bare": {"X: y"}, "null": {"Origin: null", "Access-Control-Request-Method: DELETE"},
	} {
		e.attack("H15 "+name, raw{method: "OPTIONS", target: "/svc-a/x", headers: headers}, refusedWith(401))
		e.attack("H15 expired, "+name, raw{method: "OPTIONS", target: "/svc-a/x", token: expired, headers: headers}, refusedWith(401))
	}
}
