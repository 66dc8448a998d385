package attacks_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2 is a connection in the clear on which anything can be said.
type h2 struct {
	*http2.Framer
	conn net.Conn
	// patience is how long an answer may take.
	patience time.Duration
}

func (e *edge) h2(t *testing.T) *h2 {
	t.Helper()
	conn, err := net.DialTimeout("tcp", e.address, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c := &h2{http2.NewFramer(conn, conn), conn, 5 * time.Second}
	c.AllowIllegalWrites = true
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, _ = io.WriteString(conn, http2.ClientPreface)
	if err := c.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return c
}

// block encodes headers as they stand, "name: value".
func block(headers ...string) []byte {
	var b bytes.Buffer
	encoder := hpack.NewEncoder(&b)
	for _, h := range headers {
		i := strings.Index(h[1:], ":") + 1 // a pseudo-header begins with a colon
		_ = encoder.WriteField(hpack.HeaderField{Name: h[:i], Value: strings.TrimPrefix(h[i+1:], " ")})
	}
	return b.Bytes()
}

// request sends headers, and data if there is any, as stream 1 and returns the
// status; 0 if the stream or the connection was reset.
func (c *h2) request(headers []string, data ...string) int {
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(headers...), EndHeaders: true, EndStream: len(data) == 0})
	for i, d := range data {
		_ = c.WriteData(1, i == len(data)-1, []byte(d))
	}
	return c.status(1)
}

func (c *h2) status(stream uint32) int {
	_ = c.conn.SetReadDeadline(time.Now().Add(c.patience))
	for {
		frame, err := c.ReadFrame()
		if err != nil {
			return 0
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			if status, err := strconv.Atoi(f.PseudoValue("status")); err == nil && f.StreamID == stream {
				return status
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				return 0
			}
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return 0
			}
		}
	}
}

// Attack row F02, and what of P05, P11, H01, H07 and H09 only HTTP/2 can say: what
// HTTP/1.1 would read in another way is no request.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user := "authorization: Bearer " + e.token()
	usual := func(path string, more ...string) []string {
		return append([]string{":method: GET", ":scheme: http", ":authority: api.test", ":path: " + path, user}, more...)
	}
	post := func(more ...string) []string {
		return append([]string{":method: POST", ":scheme: http", ":authority: api.test", ":path: /svc-a/x", user}, more...)
	}
	attack := func(name string, want safe, headers []string, data ...string) {
		t.Helper()
		before := e.seen()
		e.judge(name, before, e.h2(t).request(headers, data...), want)
	}
	allowed := safe{allowed: true, user: "alice"}
	either := safe{allowed: true, user: "alice", refused: clientErrors}
	attack("F02 control", allowed, usual("/svc-a/x"))
	attack("F02 control with data", allowed, post("content-length: 2"), "a", "b")
	refusedAll(t, e, map[string][]string{
		"no path":                {":method: GET", ":scheme: http", ":authority: api.test", user},
		"no method":              {":scheme: http", ":authority: api.test", ":path: /svc-a/x", user},
		"no scheme":              {":method: GET", ":authority: api.test", ":path: /svc-a/x", user},
		"two paths":              append([]string{":path: /public/x"}, usual("/admin")...),
		"two paths, other order": append(usual("/admin"), ":path: /public/x"),
		"two methods":            append([]string{":method: GET"}, usual("/read/x")...),
		"two authorities":        append([]string{":authority: api.test"}, usual("/svc-a/x")...),
		"pseudo after regular":   {":method: GET", ":scheme: http", user, ":path: /svc-a/x", ":authority: api.test"},
		"unknown pseudo":         usual("/svc-a/x", ":evil: x"),
		"pseudo of answers":      append([]string{":status: 200"}, usual("/svc-a/x")...),
		":protocol":              append([]string{":protocol: websocket"}, usual("/svc-a/x")...),
		"upper case":             usual("/svc-a/x", "X-Upper: x"),
		"transfer-encoding":      usual("/svc-a/x", "transfer-encoding: chunked"),
		"connection":             usual("/svc-a/x", "connection: close"),
		"keep-alive":             usual("/svc-a/x", "keep-alive: 1"),
		"upgrade":                usual("/svc-a/x", "upgrade: websocket"),
		"proxy-connection":       usual("/svc-a/x", "proxy-connection: x"),
		"te":                     usual("/svc-a/x", "te: chunked"),
		"CRLF in a value":        usual("/svc-a/x", "x: a\r\nx-admin: 1"),
		"LF in a value":          usual("/svc-a/x", "x: a\nx-admin: 1"),
		"NUL in a value":         usual("/svc-a/x", "x: a\x00"),
		"CRLF in a name":         usual("/svc-a/x", "x\r\ny: a"),
		"space in a name":        usual("/svc-a/x", "x y: a"),
		"CRLF in the path":       usual("/svc-a/x HTTP/1.1\r\nx: y"),
		"space in the path":      usual("/svc-a/x y"),
		"method with a space":    {":method: GET /admin", ":scheme: http", ":authority: api.test", ":path: /svc-a/x", user},
		"authority with a path":  {":method: GET", ":scheme: http", ":authority: api.test/admin", ":path: /host/x", user},
		"authority with a user":  {":method: GET", ":scheme: http", ":authority: user@api.test", ":path: /host/x", user},
		"CONNECT":                {":method: CONNECT", ":authority: api.test:443", user},
		"CONNECT with path":      {":method: CONNECT", ":scheme: http", ":authority: api.test", ":path: /svc-a/x", user},
		"P05 fragment":           usual("/admin#/public"),
		"P05 fragment, public":   usual("/public#/../admin"),
		"P11 no slash":           usual("admin"),
		"P11 empty":              usual(""),
		"P11 query":              usual("?x"),
		"P11 star":               usual("*"),
		"H10 underscore":         usual("/svc-a/x", "x_y: a"),
		"H07 two credentials":    usual("/svc-a/x", user),
		"H09 not UTF-8":          usual("/role/x", "x-role: user", "x: \xc3\x28"),
	})
	for name, headers := range map[string][]string{
		"scheme ftp": {":method: GET", ":scheme: ftp", ":authority: api.test", ":path: /svc-a/x", user}, "host beside": usual("/host/x", "host: api.test"),
		"H01 Passport": usual("/svc-a/x", "txn-token: x"), "cookies": usual("/svc-a/x", "cookie: a=b", "cookie: c=d"), "te: trailers": usual("/svc-a/x", "te: trailers"),
	} {
		attack("F02 "+name, either, headers)
	}
	// Of two hosts the authority counts, for the rule and for the service.
	attack("F02 another host", either, usual("/host/x", "host: evil.test"))
	attack("F02 the rule's host", refusedWith(0, 400, 403), append([]string{":method: GET", ":scheme: http", ":authority: evil.test", ":path: /host/x", user}, "host: api.test"))
	refusedAll(t, e, map[string][]string{
		"content-length too small": post("content-length: 1"), "content-length too large": post("content-length: 100"),
		"two content-lengths": post("content-length: 6", "content-length: 7"), "content-length +": post("content-length: +6"),
	}, "abcdef")
	refusedAll(t, e, map[string][]string{"content-length without data": post("content-length: 100")})
	for _, received := range e.upstream.Received() {
		if received.Header.Get("X-Admin") != "" || received.Host == "evil.test" {
			t.Errorf("F02: the service got %+v", received)
		}
	}
	e.good(t)
}

// refusedAll sends all at once, since Envoy takes a second to hang up, and sees
// that none gets anywhere.
func refusedAll(t *testing.T, e *edge, requests map[string][]string, data ...string) {
	t.Helper()
	before := e.seen()
	var wg sync.WaitGroup
	for name, headers := range requests {
		c := e.h2(t)
		wg.Go(func() {
			if status := c.request(headers, data...); !slices.Contains(clientErrors, status) {
				t.Errorf("F02 %s: status %d", name, status)
			}
		})
	}
	wg.Wait()
	after := e.settled()
	if after.received != before.received || after.checks-before.checks != after.records-before.records {
		t.Errorf("F02: %+v, then %+v: the service saw %+v", before, after, e.upstream.Received()[before.received:])
	}
}

// Attack row F07 by HTTP/2: a body needs no length for a rule to read it.
func TestHTTP2Bodies(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	headers := []string{
		":method: POST", ":scheme: http", ":authority: api.test", ":path: /upload/x", "authorization: Bearer " + e.token(), "content-type: application/json",
	}
	for name, row := range map[string]struct {
		data []string
		want safe
	}{
		"good":           {[]string{`{"amount"`, `:5}`}, safe{allowed: true, user: "alice"}},
		"too much":       {[]string{`{"amount":5`, `00}`}, refusedWith(403)},
		"nothing":        {[]string{""}, refusedWith(403)},
		"too much later": {append([]string{`{"amount":5,`}, strings.Repeat(" ", 60<<10), strings.Repeat(" ", 10<<10), `"amount":500}`), refusedWith(0, 413)},
	} {
		before := e.seen()
		e.judge("F07 "+name, before, e.h2(t).request(headers, row.data...), row.want)
	}
}

// Attack row H11 by HTTP/2: floods end with their connection, and cost Envoy
// little.
func TestHTTP2Floods(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user := "authorization: Bearer " + e.token()
	usual := []string{":method: GET", ":scheme: http", ":authority: api.test", ":path: /svc-a/x", user}
	e.good(t)
	memory := e.memory(t)

	bomb := func() []byte { // a table entry of 4 KiB, named again and again
		var b bytes.Buffer
		encoder := hpack.NewEncoder(&b)
		for _, h := range usual {
			i := strings.Index(h[1:], ":") + 1
			_ = encoder.WriteField(hpack.HeaderField{Name: h[:i], Value: h[i+2:]})
		}
		for range 4000 {
			_ = encoder.WriteField(hpack.HeaderField{Name: "x-bomb", Value: strings.Repeat("a", 3900)})
		}
		return b.Bytes()
	}()
	c := e.h2(t)
	before := e.seen()
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: bomb, EndHeaders: true, EndStream: true})
	e.judge("H11 HPACK bomb", before, c.status(1), refusedWith(0, 400, 431))

	c = e.h2(t)
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(usual...), EndStream: true})
	for range 100_000 { // headers that never end
		if err := c.WriteContinuation(1, false, block("x: "+strings.Repeat("a", 100))); err != nil {
			break
		}
	}
	if status := c.status(1); status != 0 && status != 431 && status != 400 {
		t.Errorf("H11 CONTINUATION flood: status %d", status)
	}

	c = e.h2(t)
	ended := false
	for stream := uint32(1); stream < 40_000 && !ended; stream += 2 { // rapid reset
		err1 := c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block(usual...), EndHeaders: true, EndStream: true})
		err2 := c.WriteRSTStream(stream, http2.ErrCodeCancel)
		ended = errors.Join(err1, err2) != nil
	}
	if _, err := io.Copy(io.Discard, c.conn); err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		ended = true
	}
	if !ended {
		t.Error("H11 rapid reset: the connection goes on")
	}

	c = e.h2(t)
	for range 50_000 {
		if c.WritePing(false, [8]byte{}) != nil || c.WriteSettings() != nil {
			break
		}
	}
	e.good(t)
	if grown := e.memory(t) - memory; grown > 64<<20 {
		t.Errorf("H11: Envoy's memory grew by %d MiB", grown>>20)
	}
}

// memory is what Envoy has allocated.
func (e *edge) memory(t *testing.T) int {
	t.Helper()
	return e.Stat("server.memory_allocated")
}

// A connection of HTTP/2 has so many requests at once, and no more.
func TestHTTP2StreamsAreBounded(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	e.upstream.Handle(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	c := e.h2(t)
	for i := range 300 {
		headers := []string{":method: GET", ":scheme: http", ":authority: api.test", fmt.Sprintf(":path: /public/%d", i)}
		if c.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: block(headers...), EndHeaders: true, EndStream: true}) != nil {
			break
		}
	}
	time.Sleep(500 * time.Millisecond)
	if n := e.upstream.Count("/public"); n > 100 {
		t.Errorf("%d requests of one connection at once", n)
	}
}

// Attack row H01 by HTTP/2: what comes after a body says nothing of the user
// either.
func TestTrailers(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	user := "authorization: Bearer " + e.token()
	var trailers http.Header
	e.upstream.Handle(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		trailers = r.Trailer.Clone()
	})
	c := e.h2(t)
	before := e.seen()
	_ = c.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: block(":method: POST", ":scheme: http", ":authority: api.test", ":path: /svc-a/x", user,
			"trailer: txn-token, x-forwarded-client-cert, x-envoy-internal, x-kept"), EndHeaders: true,
	})
	_ = c.WriteData(1, false, []byte("a"))
	_ = c.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: block("txn-token: x", "x-forwarded-client-cert: x", "x-envoy-internal: true", "x-kept: y"), EndHeaders: true, EndStream: true,
	})
	e.judge("H01 trailers", before, c.status(1), safe{allowed: true, user: "alice", refused: clientErrors})
	for name, lines := range trailers {
		if lines != nil { // Go has those that the request declares
			t.Errorf("H01: the service got the trailer %s: %s", name, lines)
		}
	}
}
