package attacks_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// raw is a request in HTTP/1.1 that no library would write.
type raw struct {
	method, target string
	host           string // empty is api.test
	token          string
	// headers are lines, as they are sent.
	headers []string
	body    string
}

func (r raw) text() string {
	var b strings.Builder
	if r.method == "" {
		r.method = "GET"
	}
	if r.host == "" {
		r.host = "api.test"
	}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.method, r.target, r.host)
	if r.token != "" {
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\n", r.token)
	}
	for _, line := range r.headers {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("Connection: close\r\n\r\n" + r.body)
	return b.String()
}

// send sends a request and returns the status, 0 if the connection was closed
// without one.
func (e *edge) send(r raw) int {
	e.t.Helper()
	statuses := e.exchange(r.text())
	if len(statuses) == 0 {
		return 0
	}
	return statuses[0]
}

// attack sends a request and judges what came of it.
func (e *edge) attack(name string, r raw, want safe) {
	e.t.Helper()
	before := e.seen()
	e.judge(name, before, e.send(r), want)
}

// exchange writes text to a connection in the clear and returns the statuses of
// all answers until the connection ends, or nothing has come for a while.
func (e *edge) exchange(text string) (statuses []int) {
	e.t.Helper()
	conn, err := net.DialTimeout("tcp", e.address, 20*time.Second)
	if err != nil {
		e.t.Fatal(err)
	}
	defer conn.Close()
	go func() { _, _ = io.WriteString(conn, text) }() // what is refused may not be read
	in := bufio.NewReader(conn)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(3 * time.Second))
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			return statuses
		}
		statuses = append(statuses, response.StatusCode)
		if _, err := io.Copy(io.Discard, response.Body); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return statuses
		}
		response.Body.Close()
		if response.Close {
			return statuses
		}
	}
}

// good shows that the gateway still serves who is in order.
func (e *edge) good(t *testing.T) {
	t.Helper()
	before := e.settled()
	e.judge("afterwards", before, e.send(raw{target: "/svc-a/orders", token: e.token()}), safe{allowed: true, user: "alice"})
}
