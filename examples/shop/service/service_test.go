package service_test

import (
	"crypto/ed25519"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/examples/shop/service"
	"github.com/chancery-mesh/chancery/passport"
)

const gateway = "spiffe://shop.example/gateway/public"

// shop is a gateway's key, and services that know it.
type shop struct {
	signer   *passport.Signer
	verifier *passport.Verifier
}

func newShop(t *testing.T) shop {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := passport.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := passport.NewVerifier(passport.VerifierConfig{
		TrustDomain: "shop.example",
		Keys:        passport.KeySet{signer.KeyID(): {Owner: gateway, Public: signer.Public(), Providers: []string{"staff"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return shop{signer, verifier}
}

func (s shop) start(t *testing.T, name, upstream string) *httptest.Server {
	t.Helper()
	app, err := service.New(service.Config{Name: name, Instance: name + "-1", Upstream: upstream, Verifier: s.verifier})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(app.Handler())
	t.Cleanup(server.Close)
	return server
}

func (s shop) passport(t *testing.T) string {
	t.Helper()
	token, err := s.signer.Mint(&passport.Passport{
		ID: "call-1", Subject: "ada", Audience: "shop.example", Provider: "staff", Gateway: gateway,
		IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute),
		Tenant: "acme", Groups: []string{"sales"}, Client: "web",
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// get decodes a 200 into v and returns the status.
func get(t *testing.T, url string, header http.Header, v any) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
			t.Fatal(err)
		}
	}
	return resp.StatusCode
}

func TestPassportTravelsOn(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	inventory := s.start(t, "inventory", "")
	orders := s.start(t, "orders", inventory.URL)

	var got service.Answer
	get(t, orders.URL+"/orders/7", http.Header{
		passport.Header:           {s.passport(t)},
		"X-Forwarded-Client-Cert": {"By=spiffe://shop.example/service/orders;URI=" + gateway},
	}, &got)
	p := service.Passport{ID: "call-1", User: "ada", Tenant: "acme", Groups: []string{"sales"}, Client: "web", Gateway: gateway}
	want := service.Answer{
		Service: "orders", Instance: "orders-1", Passport: p, Caller: gateway,
		Upstream: &service.Upstream{Service: "inventory", Status: http.StatusOK, Answer: &service.Answer{
			Service: "inventory", Instance: "inventory-1", Passport: p,
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReceivedCountsWhatIsTurnedAwayToo(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	inventory := s.start(t, "inventory", "")
	token := s.passport(t)
	for _, test := range []struct {
		header http.Header
		want   int
	}{
		{http.Header{}, http.StatusUnauthorized},
		{http.Header{passport.Header: {"forged"}}, http.StatusUnauthorized},
		{http.Header{passport.Header: {token}, "Authorization": {"Bearer x"}}, http.StatusOK},
	} {
		if got := get(t, inventory.URL+"/stock/7", test.header, new(service.Answer)); got != test.want {
			t.Errorf("%d, want %d", got, test.want)
		}
	}
	var got service.Received
	get(t, inventory.URL+"/-/received", nil, &got)
	want := service.Received{
		Requests: map[string]int{"GET /stock/7": 3}, Total: 3, WithoutPassport: 1, WithAuthorization: 1, Passport: token,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestUpstreamAway(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	orders := s.start(t, "orders", "http://127.0.0.1:1")
	if got := get(t, orders.URL+"/orders/7", http.Header{passport.Header: {s.passport(t)}}, nil); got != http.StatusBadGateway {
		t.Error(got)
	}
}

func TestNewRefusesUnknownServices(t *testing.T) {
	t.Parallel()
	if _, err := service.New(service.Config{Name: "accounts", Verifier: newShop(t).verifier}); err == nil {
		t.Error("no error")
	}
}
