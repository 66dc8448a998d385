package main

import (
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/examples/shop/service"
)

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"nothing":             {nil, "usage:"},
		"an unknown command":  {[]string{"dance"}, `no command "dance"`},
		"claims that are not": {[]string{"token", "-claims", "{"}, "is not JSON"},
		"health of nothing":   {[]string{"health"}, "usage: shop health URL"},
		"an unknown service":  {[]string{"service", "-name", "accounts", "-listen", "127.0.0.1:0"}, `no service "accounts"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := run(t.Context(), test.args); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/mint" {
			t.Errorf("%s: %v", r.URL, err)
		}
		_, _ = io.WriteString(w, "token of "+string(claims))
	}))
	defer issuer.Close()
	out := filepath.Join(t.TempDir(), "token")
	args := []string{"token", "-mint", issuer.Listener.Addr().String(), "-out", out, "-claims", `{"sub":"joe"}`}
	if err := run(t.Context(), args); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if want := "Authorization: Bearer token of {\"sub\":\"joe\"}\n"; string(got) != want {
		t.Errorf("wrote %q, want %q", got, want)
	}
	if info, err := os.Stat(out); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v: %v", info.Mode(), err)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	status := http.StatusNoContent
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	defer server.Close()
	if err := run(t.Context(), []string{"health", server.URL}); err != nil {
		t.Error(err)
	}
	status = http.StatusServiceUnavailable
	if err := run(t.Context(), []string{"health", server.URL}); err == nil {
		t.Error("503 is healthy")
	}
}

func TestRegistration(t *testing.T) {
	t.Parallel()
	listen := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080}
	for name, test := range map[string]struct {
		mesh string
		want string
	}{
		"the sidecar is beside it":     {":15006", "10.0.0.7:15006"},
		"the sidecar is where it says": {"10.0.0.8:15006", "10.0.0.8:15006"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var f serviceFlags
			flags := flag.NewFlagSet("", flag.ContinueOnError)
			f.add(flags)
			if err := flags.Parse([]string{"-name", "orders", "-instance", "orders-1", "-advertise", "10.0.0.7", "-mesh", test.mesh}); err != nil {
				t.Fatal(err)
			}
			got, err := f.registration(listen)
			if err != nil {
				t.Fatal(err)
			}
			want := service.Registration{
				Service: "orders", Instance: "orders-1",
				Address: netip.MustParseAddrPort("10.0.0.7:8080"), Mesh: netip.MustParseAddrPort(test.want),
			}
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		})
	}
}
