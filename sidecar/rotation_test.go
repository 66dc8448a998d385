package sidecar_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/identity"
)

// verifier is a service's instance that verifies its callers by the whole trust
// rule, and now and then has them make a new connection.
type verifier struct {
	*workload

	mu       sync.Mutex
	svid     *identity.SVID
	serials  map[string]bool
	requests int
	refused  []error
}

func newVerifier(t *testing.T, cp *controlPlane, name string) *verifier {
	t.Helper()
	id := identity.ID{Role: identity.RoleService, Name: name}
	v := &verifier{
		workload: &workload{name: name, id: id, held: make(chan struct{}), seen: map[string]bool{}},
		svid:     cp.issue(id), serials: map[string]bool{},
	}
	server := httptest.NewUnstartedServer(v)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.TLS = &tls.Config{
		ClientAuth: tls.RequireAnyClientCert,
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			v.mu.Lock()
			defer v.mu.Unlock()
			c := server.TLS.Clone()
			c.Certificates = []tls.Certificate{v.svid.TLSCertificate()}
			return c, nil
		},
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := cp.Trust().Verify(s.PeerCertificates, time.Now())
			v.mu.Lock()
			defer v.mu.Unlock()
			v.serials[s.PeerCertificates[0].SerialNumber.Text(16)] = true
			if err != nil {
				v.refused = append(v.refused, err)
			}
			return err
		},
	}
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	v.address = server.Listener.Addr().(*net.TCPAddr).AddrPort()
	return v
}

// ServeHTTP implements http.Handler.
func (v *verifier) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	v.requests++
	if v.requests%20 == 0 {
		rw.Header().Set("Connection", "close")
	}
	v.mu.Unlock()
	v.workload.ServeHTTP(rw, r)
}

// replace gives the instance a certificate of the authority that is active.
func (v *verifier) replace(cp *controlPlane) {
	svid := cp.issue(v.id)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.svid = svid
}

// Leaves of eight seconds and one authority after another, under load on new
// and on old connections: nothing fails, and the stream to the control plane
// does not flap.
func TestRealEnvoyKeepsServingThroughRotations(t *testing.T) {
	command := quietEnvoy(t)
	cp := newControlPlane(t, web)
	cp.live(8 * time.Second)
	v := newVerifier(t, cp, "orders")
	cp.set("rev-1", webView(t, v.workload)...)
	cp.start()
	a := newAgent(t, cp)
	a.config.Identity = web
	a.config.EnvoyCommand = command
	a.config.Local.Inbound, a.config.Local.Outbound = freeAddress(t), freeAddress(t)
	a.start()
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	t.Cleanup(client.CloseIdleConnections)
	call := func(path string) error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.config.Local.Outbound.String()+path, nil)
		if err != nil {
			return err
		}
		req.Host = "orders"
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return errors.Join(err, is(resp.StatusCode, http.StatusOK))
	}
	eventually(t, "orders answers", func() error { return call("/") })
	eventually(t, "rev-1 is acknowledged", acknowledged(cp, "rev-1"))
	slow := make(chan error, 1)
	go func() { slow <- call("/slow") }()
	eventually(t, "a request is under way", func() error { return is(v.waiting(), 1) })

	stop, failures := underLoad(t, func() error {
		if !a.Status().ControlPlaneConnected {
			return errors.New("the control plane's stream flaps")
		}
		return call("/")
	})
	rotate(t, cp, v)
	eventually(t, "there was much to do", func() error {
		_, renewals := cp.counts()
		v.mu.Lock()
		defer v.mu.Unlock()
		if renewals < 3 || len(v.serials) < 4 || v.requests < 500 {
			return fmt.Errorf("%d renewals, %d certificates of the caller seen, %d requests", renewals, len(v.serials), v.requests)
		}
		return nil
	})
	v.release()
	if err := <-slow; err != nil {
		t.Errorf("the request that was under way: %v", err)
	}
	if failed := append(failures(stop), v.refusals()...); len(failed) > 0 {
		t.Errorf("%d failures, the first: %v", len(failed), failed[0])
	}
}

// rotate replaces the authority, each step once it has reached Envoy.
func rotate(t *testing.T, cp *controlPlane, v *verifier) {
	t.Helper()
	reached := func(err error) {
		t.Helper()
		check(t, err)
		cp.publishTrust()
		eventually(t, "Envoy has the trust", func() error {
			return is(cp.lastReport().GetTrustSequence(), cp.ca.Trust().GetSequence())
		})
	}
	old := cp.SVID().Authority()
	next, err := cp.ca.Prepare(true)
	reached(err)
	reached(cp.ca.Activate(next.ID))
	cp.replace()
	v.replace(cp)
	reached(cp.ca.Taint(old))
	eventually(t, "Envoy has a certificate of the next authority", func() error {
		return is(cp.lastReport().GetSvidAuthority(), next.ID)
	})
	reached(cp.ca.Revoke(old))
}

// underLoad makes requests until it is stopped, and tells which failed.
func underLoad(t *testing.T, request func() error) (stop func(), failures func(stop func()) []error) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				if err := request(); err != nil {
					mu.Lock()
					failed = append(failed, err)
					mu.Unlock()
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	return stop, func(stop func()) []error {
		stop()
		load.Wait()
		return failed
	}
}

func (v *verifier) refusals() []error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.refused
}
