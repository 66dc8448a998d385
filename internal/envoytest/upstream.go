package envoytest

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Upstream is a service that notes what reaches it.
type Upstream struct {
	server *httptest.Server

	mu       sync.Mutex
	handler  http.HandlerFunc
	received []Received
}

// Received is one request as it reached an upstream.
type Received struct {
	Method string
	// Target is the request target, byte for byte.
	Target string
	Host   string
	Header http.Header
}

// NewUpstream starts a service on loopback that answers 200, until the test
// ends. With config it speaks HTTP/2 over TLS, else HTTP in the clear.
func NewUpstream(t testing.TB, config *tls.Config) *Upstream {
	t.Helper()
	u := &Upstream{handler: func(http.ResponseWriter, *http.Request) {}}
	u.server = httptest.NewUnstartedServer(u)
	u.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // refused handshakes
	if config == nil {
		u.server.Config.Protocols = &http.Protocols{}
		u.server.Config.Protocols.SetHTTP1(true)
		u.server.Config.Protocols.SetUnencryptedHTTP2(true)
		u.server.Start()
	} else {
		u.server.TLS = config
		u.server.EnableHTTP2 = true
		u.server.StartTLS()
	}
	t.Cleanup(u.server.Close)
	return u
}

// Address returns where it listens.
func (u *Upstream) Address() netip.AddrPort {
	return netip.MustParseAddrPort(u.server.Listener.Addr().String())
}

// Handle makes handler answer from now on.
func (u *Upstream) Handle(handler http.HandlerFunc) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.handler = handler
}

// Received returns what came so far.
func (u *Upstream) Received() []Received {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.received)
}

// Count returns how many requests came for a path and what lies below it.
func (u *Upstream) Count(path string) int {
	n := 0
	for _, r := range u.Received() {
		if strings.HasPrefix(r.Target, path) {
			n++
		}
	}
	return n
}

// Stop closes it, as if it had been killed.
func (u *Upstream) Stop() {
	u.server.CloseClientConnections()
	u.server.Close()
}

// ServeHTTP notes the request and hands it on.
func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	u.received = append(u.received, Received{
		Method: r.Method,
		Target: r.RequestURI,
		Host:   r.Host,
		Header: r.Header.Clone(),
	})
	handler := u.handler
	u.mu.Unlock()
	handler(w, r)
}
