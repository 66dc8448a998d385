package breaker

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"github.com/chancery-mesh/chancery/mesh"
)

// Outward returns an HTTP client for addresses that documents or other systems
// name: it connects to none that [mesh.CheckAddress] refuses. That is judged
// when a name has been resolved, on the very address that is connected to, so
// no answer of DNS leads past it.
//
// Where the environment names a proxy for a host (HTTPS_PROXY), the proxy
// resolves it, and it is for the proxy to judge.
func Outward(allowPrivate bool) *http.Client {
	return outwardBy(http.ProxyFromEnvironment, allowPrivate)
}

// chooseProxy returns the proxy for a request, nil for none.
type chooseProxy func(*http.Request) (*url.URL, error)

func outwardBy(choose chooseProxy, allowPrivate bool) *http.Client {
	direct := transport()
	dialer := &net.Dialer{
		Timeout: 5 * time.Second,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			return mesh.CheckAddress(to.Addr(), allowPrivate)
		},
	}
	direct.DialContext = dialer.DialContext
	proxied := transport()
	proxied.Proxy = choose
	return &http.Client{Transport: outward{choose, direct, proxied}}
}

func transport() *http.Transport {
	return &http.Transport{
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        20 * time.Second,
		TLSHandshakeTimeout:    5 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

type outward struct {
	choose          chooseProxy
	direct, proxied *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (o outward) RoundTrip(req *http.Request) (*http.Response, error) {
	if proxy, err := o.choose(req); proxy != nil || err != nil {
		return o.proxied.RoundTrip(req)
	}
	return o.direct.RoundTrip(req)
}

// CloseIdleConnections lets http.Client reach the transports'.
func (o outward) CloseIdleConnections() {
	o.direct.CloseIdleConnections()
	o.proxied.CloseIdleConnections()
}
