package envoy_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/breaker"
	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/envoytest"
)

// An instance whose application is gone while its sidecar is not costs no
// request: the caller's Envoy asks another.
func TestDeadApplicationIsPassedBy(t *testing.T) {
	t.Parallel()
	authority, application := envoytest.NewAuthority(t), envoytest.NewUpstream(t, nil)
	m := chain()
	dying := startSidecar(t, m, authority, application, nil)
	alive := envoytest.NewUpstream(t, authority.Server(ordersID))
	instances := append(meshed(alive.Address()), meshed(addrPort(t, dying.Address("inbound")))...)
	gateway := start(t, envoy.Gateway(m, m.Gateway("public")), envoy.Local{Inbound: anyPort}, m,
		map[string][]instance{"orders": instances}, workload(t, authority, gatewayID))
	base := "http://" + gateway.Address("gateway")
	await(t, "the application is reached through both Envoys", func() bool {
		return get(t, base+"/orders").status == http.StatusOK && application.Count("/orders") > 0
	})
	if xfcc := application.Received()[0].Header.Get("X-Forwarded-Client-Cert"); !strings.HasSuffix(xfcc, "URI="+gatewayID) {
		t.Errorf("the application was told of the caller %q", xfcc)
	}
	application.Stop()
	for i := range 20 {
		got := send(t, http.MethodPost, base+"/orders")
		if got.status != http.StatusOK {
			t.Fatalf("request %d: status %d: %s", i, got.status, got.body)
		}
	}
	if gateway.Stat("cluster.orders.upstream_rq_retry") == 0 {
		t.Error("the dead application was never tried")
	}
}

// Only Envoy says that an application was not reached: one that was, and says
// so, is not asked again.
func TestUnreachedIsNotTheApplicationsToSay(t *testing.T) {
	t.Parallel()
	authority, application := envoytest.NewAuthority(t), envoytest.NewUpstream(t, nil)
	application.Handle(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(breaker.HeaderUnreached, "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	e := startSidecar(t, chain(), authority, application, nil)
	got := sendBy(t, as(authority.Client(gatewayID)), http.MethodGet, "https://"+e.Address("inbound")+"/orders")
	if got.status != http.StatusServiceUnavailable || got.header.Get(breaker.HeaderUnreached) != "" {
		t.Errorf("status %d, header %v", got.status, got.header)
	}
}
