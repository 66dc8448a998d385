package doctor_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/chancery-mesh/chancery/doctor"
)

func TestReach(t *testing.T) {
	t.Parallel()
	application := listen(t, "127.0.0.1")
	go serve(application)
	clear := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(clear.Close)
	closed := listen(t, "127.0.0.1")
	_ = closed.Close()
	strict, lenient := sidecar(t, tls.RequireAnyClientCert, true), sidecar(t, tls.RequestClientCert, true)
	silent := sidecar(t, tls.RequestClientCert, false)

	tests := map[string]struct {
		instance doctor.Instance
		want     []finding
	}{
		"as it shall be":           {doctor.Instance{Address: at(closed), Mesh: strict}, nil},
		"application on loopback":  {doctor.Instance{Address: at(application), Mesh: strict}, []finding{{doctor.Note, "orders/1", "past its sidecar"}}},
		"both at one address":      {doctor.Instance{Address: strict, Mesh: strict}, nil},
		"no sidecar":               {doctor.Instance{Address: at(closed)}, []finding{{doctor.Problem, "orders/1", "does not say where"}}},
		"sidecar is away":          {doctor.Instance{Address: at(closed), Mesh: at(closed)}, []finding{{doctor.Note, "orders/1", "cannot be reached"}}},
		"sidecar speaks no TLS":    {doctor.Instance{Address: at(closed), Mesh: at(clear.Listener)}, []finding{{doctor.Problem, "orders/1", "does not speak TLS"}}},
		"sidecar lets everyone in": {doctor.Instance{Address: at(closed), Mesh: lenient}, []finding{{doctor.Problem, "orders/1", "without a certificate is let in"}}},
		"and waits to be asked":    {doctor.Instance{Address: at(closed), Mesh: silent}, []finding{{doctor.Problem, "orders/1", "without a certificate is let in"}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := test.instance
			i.Service, i.ID = "orders", "1"
			if found := doctor.Reach(t.Context(), []doctor.Instance{i}); len(found) != 0 {
				t.Errorf("without mutual TLS: %+v", found)
			}
			i.MTLS = true
			expect(t, doctor.Reach(t.Context(), []doctor.Instance{i}), test.want...)
		})
	}
}

// TestReachFromOutside is about an application that other hosts reach.
func TestReachFromOutside(t *testing.T) {
	t.Parallel()
	application := listen(t, outside(t))
	go serve(application)
	i := doctor.Instance{Service: "orders", ID: "1", MTLS: true, Address: at(application), Mesh: sidecar(t, tls.RequireAnyClientCert, true)}
	expect(t, doctor.Reach(t.Context(), []doctor.Instance{i}), finding{doctor.Problem, "orders/1", "not asked who they are"})
}

// outside returns an address of this host that others may reach.
func outside(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Is4() && !prefix.Addr().IsLoopback() {
			return prefix.Addr().String()
		}
	}
	t.Skip("this host has loopback addresses alone; run it where there is a network")
	return ""
}

// sidecar speaks TLS to clients that show what auth demands, and then either
// HTTP/2, whose server speaks first, or HTTP/1.1.
func sidecar(t *testing.T, auth tls.ClientAuthType, http2 bool) netip.AddrPort {
	t.Helper()
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.EnableHTTP2 = http2
	s.TLS = &tls.Config{ClientAuth: auth, MinVersion: tls.VersionTLS13}
	s.StartTLS()
	t.Cleanup(s.Close)
	return at(s.Listener)
}

func at(l net.Listener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

// serve hangs up on everybody.
func serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.Close()
	}
}
