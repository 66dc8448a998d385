package attacks_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/chancery-mesh/chancery/internal/envoytest"
)

// Attack row F01: where one request ends there is no doubt, or no request. Behind
// each attack is a request for /admin/smuggled, which must never come to a
// service without having been checked.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	const smuggled = "GET /public/smuggled HTTP/1.1\r\nHost: api.test\r\nX: "
	size := fmt.Sprintf("Content-Length: %d", len(smuggled))
	for name, r := range map[string]struct {
		headers []string
		body    string
	}{
		"CL.TE":                {[]string{"Content-Length: 5", "Transfer-Encoding: chunked"}, "0\r\n\r\n" + smuggled},
		"TE.CL":                {[]string{"Transfer-Encoding: chunked", size}, "0\r\n\r\n" + smuggled},
		"TE xchunked":          {[]string{"Transfer-Encoding: xchunked", size}, smuggled},
		"TE chunked, identity": {[]string{"Transfer-Encoding: chunked, identity"}, "0\r\n\r\n" + smuggled},
		"TE identity, chunked": {[]string{"Transfer-Encoding: identity, chunked"}, "0\r\n\r\n" + smuggled},
		"two TE":               {[]string{"Transfer-Encoding: chunked", "Transfer-Encoding: identity"}, "0\r\n\r\n" + smuggled},
		"TE with a space":      {[]string{"Transfer-Encoding : chunked"}, "0\r\n\r\n" + smuggled},
		"TE with a tab":        {[]string{"Transfer-Encoding:\tchunked", size}, "0\r\n\r\n" + smuggled},
		"TE quoted":            {[]string{`Transfer-Encoding: "chunked"`, size}, "0\r\n\r\n" + smuggled},
		"TE folded":            {[]string{"Transfer-Encoding:\r\n chunked", size}, "0\r\n\r\n" + smuggled},
		"two CL":               {[]string{"Content-Length: 0", size}, smuggled},
		"CL list":              {[]string{"Content-Length: 0, " + size[16:]}, smuggled},
		"CL +":                 {[]string{"Content-Length: +5"}, smuggled},
		"CL -":                 {[]string{"Content-Length: -1"}, smuggled},
		"CL hexadecimal":       {[]string{"Content-Length: 0x10"}, smuggled},
		"CL too large":         {[]string{"Content-Length: 99999999999999999999"}, smuggled},
		"chunk extension":      {[]string{"Transfer-Encoding: chunked"}, "0;\n\r\n\r\n" + smuggled},
		"chunk size +":         {[]string{"Transfer-Encoding: chunked"}, "+0\r\n\r\n" + smuggled},
		"chunk size 0x":        {[]string{"Transfer-Encoding: chunked"}, "0x0\r\n\r\n" + smuggled},
		"chunk size too large": {[]string{"Transfer-Encoding: chunked"}, "10000000000000000\r\n\r\n" + smuggled},
		"chunk without CR":     {[]string{"Transfer-Encoding: chunked"}, "0\n\n" + smuggled},
	} {
		before := e.settled()
		statuses := e.exchange("POST /svc-a/x HTTP/1.1\r\nHost: api.test\r\n" + strings.Join(r.headers, "\r\n") + "\r\n\r\n" + r.body + "\r\n\r\n")
		if len(statuses) > 0 && statuses[0] != 400 && statuses[0] != 401 && statuses[0] != 501 {
			t.Errorf("F01 %s: %v", name, statuses)
		}
		// What comes after is a request of its own, on which nobody relies, or none
		// at all: of each one that the service got there was a check.
		after := e.settled()
		if received := after.received - before.received; received > 0 && (after.checks-before.checks != len(statuses) || received != len(statuses)-1) {
			t.Errorf("F01 %s: %v, the service saw %d of %d checked", name, statuses, received, after.checks-before.checks)
		}
	}
	e.good(t)
}

// Attack rows F03: a request for another protocol is a request, and nothing that
// comes before the answer goes on.
func TestUpgrades(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user := e.token()
	const early = "GET /admin HTTP/1.1\r\nHost: api.test\r\n\r\n"
	websocket := []string{"Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"}
	for name, headers := range map[string][]string{
		"websocket": websocket, "other": {"Upgrade: foo"}, "h2c": {"Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"},
		"TLS": {"Upgrade: TLS/1.2"}, "two": {"Upgrade: websocket, h2c"},
	} {
		for _, token := range []string{"", "garbage", user} {
			before := e.seen()
			text := raw{target: "/svc-a/x", token: token, headers: headers}.text()
			statuses := e.exchange(strings.Replace(text, "Connection: close", "Connection: upgrade, http2-settings", 1) + early)
			for i, status := range statuses {
				if status == http.StatusSwitchingProtocols || status == http.StatusOK && (token != user || i > 0) {
					t.Errorf("F03 %s: %v", name, statuses)
				}
			}
			for _, received := range e.upstream.Received()[before.received:] {
				if token != user || strings.HasPrefix(received.Target, "/admin") || received.Header.Get("Upgrade") != "" {
					t.Errorf("F03 %s: the service got %+v", name, received)
				}
			}
		}
	}
	for _, text := range []string{
		"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n" + early,
		"CONNECT /admin HTTP/1.1\r\nHost: api.test\r\n\r\n" + early,
		"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nAuthorization: Bearer " + user + "\r\n\r\n" + early,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + early,
	} {
		before := e.seen()
		statuses := e.exchange(text)
		if after := e.seen(); after.received != before.received || len(statuses) > 0 && statuses[0] < 400 {
			t.Errorf("F03 %q: %v", text[:20], statuses)
		}
	}
	e.good(t)
}

// Attack row F04: one call has one answer, however it is written; gRPC is told in
// its own way.
func TestGRPCIsToldItsWay(t *testing.T) {
	t.Parallel()
	e := start(t, "edge")
	client := e.https(nil)
	user, admin := "Bearer "+e.token(), "Bearer "+e.admin()
	for _, kind := range []string{"application/grpc", "application/grpc+proto", "application/grpc-web", "application/grpc-web-text", "application/json"} {
		for name, want := range map[string]struct{ token, grpc, http string }{
			"nobody": {"", "16", "401"}, "garbage": {"Bearer x", "16", "401"}, "a user": {user, "7", "403"}, "an admin": {admin, "", "200"},
		} {
			headers := []string{"Content-Type", kind, "Te", "trailers"}
			if want.token != "" {
				headers = append(headers, "Authorization", want.token)
			}
			before := e.seen()
			status, header := e.do(client, "POST", "/admin/pkg.Service", bytes.NewReader([]byte{0, 0, 0, 0, 0}), headers...)
			got, expected := fmt.Sprint(status), want.http
			if kind == "application/grpc" || kind == "application/grpc+proto" {
				if expected = "200 " + want.grpc; want.grpc == "" {
					expected = "200"
				}
				got = strings.TrimSpace(got + " " + header.Get("Grpc-Status"))
			}
			if got != expected {
				t.Errorf("F04 %s by %s: %q, want %q", kind, name, got, expected)
			}
			if after := e.seen(); after.checks != before.checks+1 || (after.received != before.received) != (name == "an admin") {
				t.Errorf("F04 %s by %s: %+v, then %+v", kind, name, before, after)
			}
		}
	}
}

// Attack rows F05 to F08: a rule on a body sees all of it, or does not allow.
func TestBodies(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user := e.token()
	post := func(name, body string, want safe, headers ...string) {
		t.Helper()
		r := raw{method: "POST", target: "/upload/x", token: user, headers: append(headers, fmt.Sprintf("Content-Length: %d", len(body))), body: body}
		e.attack(name, r, want)
		r.headers = append(headers, "Transfer-Encoding: chunked")
		r.body = ""
		for len(body) > 0 { // in pieces
			n := min(len(body), 1000)
			r.body += fmt.Sprintf("%x\r\n%s\r\n", n, body[:n])
			body = body[n:]
		}
		r.body += "0\r\n\r\n"
		e.attack(name+", chunked", r, want)
	}
	const json = "Content-Type: application/json"
	allowed := safe{allowed: true, user: "alice"}
	post("F07 good", `{"amount":5}`, allowed, json)
	post("F07 good, in UTF-8", `{"amount":5}`, allowed, "Content-Type: application/json; charset=UTF-8")
	post("F07 too much", `{"amount":500}`, refusedWith(403), json)
	post("F07 empty", "", refusedWith(403), json)
	post("F05 64 KiB and more", `{"amount":5,"x":"`+strings.Repeat("a", 65<<10)+`"}`, refusedWith(413), json)
	post("F05 1 MiB", strings.Repeat(" ", 1<<20), refusedWith(0, 413), json)
	post("F06 after the limit", `{"amount":5,`+strings.Repeat(" ", 65536)+`"amount":500}`, refusedWith(413), json)
	post("F06 says it is whole", `{"amount":5,`+strings.Repeat(" ", 65536)+`"amount":500}`, refusedWith(413), json, "x-envoy-auth-partial-body: false")
	post("F06 says it is not", `{"amount":5}`, safe{allowed: true, user: "alice", refused: []int{413}}, json, "x-envoy-auth-partial-body: true")
	for _, kind := range []string{
		"Content-Type: text/plain", "Content-Type: application/JSON; charset=utf-7", "Content-Type: multipart/form-data; boundary=b",
		"Content-Type: application/x-www-form-urlencoded", "Content-Type: application/json, text/plain", "Content-Type: application/json; charset=utf-16",
		"X: no content type", "Content-Type:", json + "\r\n" + json,
	} {
		post("F08 "+kind, `{"amount":5}`, refusedWith(403), kind)
	}
	for name, body := range map[string]string{
		"twice": `{"amount":500,"amount":5}`, "twice, escaped": `{"amount":500,"amoun\u0074":5}`, "in other letters": `{"Amount":5}`, "twice, in other letters": `{"amount":5,"AMOUNT":1000000}`,
		"twice, in other letters, first": `{"Amount":1000000,"amount":5}`, "twice, by a long s": `{"amount":5,"s":1,"\u017f":2}`,
		"twice, by a Kelvin sign": `{"amount":5,"x":[{"k":1,"\u212a":2}]}`, "twice, below": `{"amount":5,"x":{"a":1,"A":2}}`, "after it": `{"amount":5}{"amount":500}`,
		"a text": `{"amount":"5"}`, "null": `{"amount":null}`, "no JSON": `amount=5`, "byte order mark": "\ufeff" + `{"amount":5}`, "a list": `[{"amount":5}]`,
		"deep": strings.Repeat("[", 10_000), "not UTF-8": "{\"amount\":5,\"x\":\"\xff\"}", "huge number": `{"amount":-1e400}`, "NaN": `{"amount":NaN}`,
		"gzip": "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xabV*J\xccU\xb2R0U\xaa\x05\x00",
	} {
		post("F08 "+name, body, refusedWith(400, 403), json)
	}
	post("F08 said to be gzip", `{"amount":5}`, refusedWith(403), json, "Content-Encoding: gzip")
	post("F08 said to be encoded twice", `{"amount":5}`, refusedWith(403), json, "Content-Encoding: identity", "Content-Encoding: gzip")
	// Where no rule reads bodies they are of any size, and pass by.
	e.attack("F05 where none is read", raw{method: "POST", target: "/svc-a/x", token: user, headers: []string{"Content-Length: 1048576"}, body: strings.Repeat("a", 1<<20)}, allowed)
	e.attack("F07 GET with a body", raw{target: "/upload/x", token: user, headers: []string{json, "Content-Length: 12"}, body: `{"amount":5}`}, refusedWith(404))
	e.good(t)
}

// Attack row F09: without an answer nobody gets in.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user := e.token()
	answered := make(chan struct{})
	for name, answer := range map[string]func() *authv3.CheckResponse{
		"denied, with the word of an allowance": func() *authv3.CheckResponse {
			response := envoytest.Allow("", nil)
			response.Status.Code = 7
			return response
		},
		"an unknown status": func() *authv3.CheckResponse {
			response := envoytest.Allow("", nil)
			response.Status.Code = 99
			return response
		},
		"late": func() *authv3.CheckResponse {
			<-answered
			return envoytest.Allow("", nil)
		},
	} {
		e.agent.Authorize(func(*authv3.CheckRequest) *authv3.CheckResponse { return answer() })
		before := len(e.upstream.Received())
		status := e.send(raw{target: "/svc-a/x", token: user, headers: []string{"x-envoy-auth-failure-mode-allowed: true"}})
		if received := len(e.upstream.Received()) - before; received != 0 || status != http.StatusForbidden && status != http.StatusServiceUnavailable {
			t.Errorf("F09 %s: status %d, the service saw %d", name, status, received)
		}
	}
	close(answered)
	e.agent.Stop()
	before := len(e.upstream.Received())
	for range 3 {
		if status := e.send(raw{target: "/svc-a/x", token: user}); status != http.StatusServiceUnavailable {
			t.Errorf("F09 nobody is there: status %d", status)
		}
	}
	// What anybody may see is asked about, too.
	if status := e.send(raw{target: "/public/x"}); status != http.StatusServiceUnavailable {
		t.Errorf("F09 nobody is there, on an open route: status %d", status)
	}
	if received := len(e.upstream.Received()) - before; received != 0 {
		t.Errorf("F09 the service saw %d", received)
	}
}

// Attack rows F15, F16 and H14: what a service answers is the client's business:
// Envoy follows nothing, and asks nobody else.
func TestAnswersOfServices(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user := e.token()
	for _, location := range []string{"/admin", "http://api.test/admin", `/\evil.test`, "//evil.test", "/\t/evil"} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			e.upstream.Handle(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", location)
				w.WriteHeader(status)
			})
			before := e.seen()
			if got := e.send(raw{target: "/svc-a/x", token: user}); got != status {
				t.Errorf("F16 %d to %s: status %d", status, location, got)
			}
			if after := e.seen(); after.received != before.received+1 || after.checks != before.checks+1 {
				t.Errorf("F16 %d to %s: %+v, then %+v", status, location, before, after)
			}
		}
	}
	for _, status := range []int{500, 502, 503, 504} {
		e.upstream.Handle(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		before := e.seen()
		e.send(raw{target: "/svc-a/x", token: user})
		if after := e.seen(); after.received != before.received+1 {
			t.Errorf("H14 %d: the service was asked %d times", status, after.received-before.received)
		}
	}
}

// A client that is slow, or says nothing, keeps nobody else.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	for range 200 {
		conn, err := net.DialTimeout("tcp", e.address, 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_, _ = io.WriteString(conn, "POST /svc-a/x HTTP/1.1\r\nHost: api.test\r\nContent-Length: 10\r\n")
	}
	began := time.Now()
	e.good(t)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("took %v beside slow clients", took)
	}
}
