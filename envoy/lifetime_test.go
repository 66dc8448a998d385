package envoy_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/envoytest"
)

// Connections end when they have lived long enough, at both ends, and no request
// fails for that.
func TestConnectionLifetime(t *testing.T) {
	t.Parallel()
	authority, application := envoytest.NewAuthority(t), envoytest.NewUpstream(t, nil)
	m := chain()
	m.Certificates.Leaf = 4 * time.Second
	inventory := m.Service("inventory")
	inventory.Routes[0].Callers = []string{"orders"}
	application.Handle(func(http.ResponseWriter, *http.Request) { time.Sleep(20 * time.Millisecond) })

	local := envoy.Local{Inbound: anyPort, Outbound: anyPort, Application: application.Address()}
	callee := start(t, envoy.Sidecar(m, inventory), local, m, nil, workload(t, authority, inventoryID))
	instances := map[string][]instance{"inventory": meshed(addrPort(t, callee.Address("inbound")))}
	caller := startSidecar(t, m, authority, application, instances)
	url := "http://" + caller.Address("outbound") + "/stock/7"

	var failed, sent atomic.Int64
	done := make(chan struct{})
	const clients = 4
	for range clients {
		go func() {
			defer func() { done <- struct{}{} }()
			for end := time.Now().Add(3500 * time.Millisecond); time.Now().Before(end); sent.Add(1) {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
				if err != nil {
					panic(err)
				}
				request.Host = "inventory"
				response, err := client.Do(request)
				if err != nil || response.StatusCode != http.StatusOK {
					failed.Add(1)
				}
				if err == nil {
					_ = response.Body.Close()
				}
			}
		}()
	}
	// Who would keep a connection for ever.
	idle := by(t, "127.0.0.1", authority.Client(ordersID))
	if got := try(t, idle, "https://"+callee.Address("inbound")+"/stock/7"); got != http.StatusOK {
		t.Fatalf("status %d", got)
	}
	callee.Await("http.inbound.downstream_cx_max_duration_reached", 1)
	for range clients {
		<-done
	}
	if failed.Load() > 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), sent.Load())
	}
	if n := caller.Stat("cluster.inventory.upstream_cx_total"); n < 3 {
		t.Errorf("%d connections for %d requests", n, sent.Load())
	}
}
