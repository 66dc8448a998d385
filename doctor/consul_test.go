package doctor_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/doctor"
	"github.com/chancery-mesh/chancery/internal/consultest"
)

func TestConsul(t *testing.T) {
	ask := func(address string) []doctor.Finding {
		t.Setenv("CONSUL_HTTP_ADDR", address)
		return doctor.Consul(t.Context(), []string{"orders"})
	}
	t.Run("without ACLs", func(t *testing.T) {
		address := consultest.Start(t).Config().Address
		expect(t, ask(address), finding{doctor.Problem, "consul at " + address + ", service orders", "anybody"})
	})
	t.Run("with ACLs that allow everything", func(t *testing.T) {
		address := consultest.StartWithOpenACLs(t).Config().Address
		expect(t, ask(address), finding{doctor.Problem, "consul at " + address + ", service orders", "anybody"})
	})
	t.Run("with ACLs", func(t *testing.T) {
		expect(t, ask(consultest.StartWithACLs(t).Config().Address))
	})
	t.Run("not there", func(t *testing.T) {
		l := listen(t, "127.0.0.1")
		_ = l.Close()
		address := l.Addr().String()
		expect(t, ask(address), finding{doctor.Problem, "consul at " + address, "cannot be asked"})
	})
	t.Run("without a leader", func(t *testing.T) {
		address := fakeConsul(t, "", 0)
		expect(t, ask(address), finding{doctor.Problem, "consul at " + address, "no leader"})
	})
	t.Run("of another time", func(t *testing.T) {
		address := fakeConsul(t, "10.0.0.1:8300", -time.Minute)
		expect(t, ask(address), finding{doctor.Problem, "consul at " + address, "away from this host's"})
	})
}

// fakeConsul has a leader and a clock, and demands a token to write services.
func fakeConsul(t *testing.T, leader string, ahead time.Duration) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status/leader", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		_, _ = io.WriteString(w, `"`+leader+`"`)
	})
	mux.HandleFunc("POST /v1/internal/acl/authorize", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `[{"Resource": "service", "Access": "write", "Segment": "orders", "Allow": false}]`)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}
