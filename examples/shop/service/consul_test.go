package service_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/examples/shop/service"
)

func TestRegister(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	var registered map[string]any
	var deregistered string
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/agent/service/register", func(_ http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&registered); err != nil {
			t.Error(err)
		}
		leave()
	})
	mux.HandleFunc("PUT /v1/agent/service/deregister/{id}", func(_ http.ResponseWriter, r *http.Request) {
		deregistered = r.PathValue("id")
	})
	consul := httptest.NewServer(mux)
	defer consul.Close()
	t.Setenv("CONSUL_HTTP_ADDR", consul.URL)

	err := service.Register(ctx, service.Registration{
		Service: "orders", Instance: "orders-1",
		Address: netip.MustParseAddrPort("10.0.0.7:8080"), Mesh: netip.MustParseAddrPort("10.0.0.7:15006"),
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	check := registered["Check"].(map[string]any)
	got := []any{
		registered["ID"], registered["Name"], registered["Address"], registered["Port"],
		registered["TaggedAddresses"], check["TTL"], check["Status"], deregistered,
	}
	want := []any{
		"orders-1", "orders", "10.0.0.7", 8080.0,
		map[string]any{"mesh": map[string]any{"Address": "10.0.0.7", "Port": 15006.0}},
		"10s", "passing", "orders-1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRegisterFails(t *testing.T) {
	consul := httptest.NewServer(http.NotFoundHandler())
	defer consul.Close()
	t.Setenv("CONSUL_HTTP_ADDR", consul.URL)
	err := service.Register(t.Context(), service.Registration{Service: "orders", Instance: "orders-1"}, slog.New(slog.DiscardHandler))
	if err == nil {
		t.Error("no error")
	}
}
