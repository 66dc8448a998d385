package tls_test

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/http"
	"testing"
	"time"
)

// client calls from an address of this host; config is nil in the clear.
func client(t *testing.T, from string, config *tls.Config) *http.Client {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DialContext: dialer.DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Timeout: 10 * time.Second, Transport: transport}
}

// customer returns a client that knows who signs the shop's certificate.
func (e *example) customer() *http.Client {
	return client(e.t, "127.0.0.1", &tls.Config{RootCAs: e.servers.Pool(), ServerName: "shop.example"})
}

// expect sends a request; status 0 is a connection that is refused.
func (e *example) expect(who string, client *http.Client, method, url string, status int) {
	e.t.Helper()
	request, err := http.NewRequestWithContext(e.t.Context(), method, url, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	got := 0
	if response, err := client.Do(request); err == nil {
		_ = response.Body.Close()
		got = response.StatusCode
	} else if status != 0 {
		e.t.Errorf("%s: %v", who, err)
	}
	if got != status {
		e.t.Errorf("%s: %s %s: status %d, want %d", who, method, url, got, status)
	}
}

// awaitEndpoints waits until the gateway knows where the services are.
func (e *example) awaitEndpoints(services ...string) {
	e.t.Helper()
	for _, service := range services {
		e.envoys["public"].Await("cluster."+service+".membership_total", 1)
	}
}

func (e *example) passports(service string) (received int) {
	for _, r := range e.applications[service].Received() {
		if r.Header.Get("Txn-Token") == passport {
			received++
		}
	}
	return received
}

func TestEverywhere(t *testing.T) {
	t.Parallel()
	e := run(t, "everywhere")
	e.awaitEndpoints("orders")
	e.envoys["orders"].Await("cluster.inventory.membership_total", 1)
	e.calls("orders", "inventory", "/stock/7")
	gateway := e.envoys["public"].Address("gateway")

	e.expect("a customer", e.customer(), http.MethodGet, "https://"+gateway+"/orders/1", 200)
	if e.passports("orders") != 1 || e.passports("inventory") != 1 {
		t.Error("the Passport did not reach every hop")
	}
	for service, tap := range e.taps {
		if said := tap.said(); len(said) == 0 || said[0] != 0x16 || bytes.Contains(said, []byte(passport)) {
			t.Errorf("%s was not reached over TLS: % .60q", service, said)
		}
	}
	e.expect("a customer in the clear", client(t, "127.0.0.1", nil), http.MethodGet, "http://"+gateway+"/orders/1", 0)
	for service, path := range map[string]string{"orders": "/orders/1", "inventory": "/stock/7"} {
		address := e.inbound(service) + path
		e.expect("who calls in the clear", client(t, "127.0.0.1", nil), http.MethodGet, "http://"+address, 0)
		nobody := &tls.Config{InsecureSkipVerify: true}
		e.expect("who has no certificate", client(t, "127.0.0.1", nobody), http.MethodGet, "https://"+address, 0)
		stranger := e.workloads.Client(spiffeID("service", "payments"))
		e.expect("who is no caller", client(t, "127.0.0.1", stranger), http.MethodGet, "https://"+address, 403)
	}
}

func TestOffload(t *testing.T) {
	t.Parallel()
	e := run(t, "offload")
	e.awaitEndpoints("orders")
	gateway := e.envoys["public"].Address("gateway")

	e.expect("a customer", e.customer(), http.MethodGet, "https://"+gateway+"/orders/1", 200)
	if said := e.taps["orders"].said(); !bytes.HasPrefix(said, []byte("GET /orders/1 HTTP/1.1\r\n")) {
		t.Errorf("orders was not reached in the clear: % .60q", said)
	}
	if bytes.Contains(e.taps["orders"].said(), []byte(passport)) || e.passports("orders") != 0 {
		t.Error("a Passport crossed in the clear")
	}
	e.expect("a customer in the clear", client(t, "127.0.0.1", nil), http.MethodGet, "http://"+gateway+"/orders/1", 0)
}

func TestAllowlist(t *testing.T) {
	t.Parallel()
	e := run(t, "allowlist", "from: [10.0.1.10/32]", "from: [127.0.0.1/32]", "from: [10.0.1.20/32]", "from: [127.0.0.20/32]")
	e.awaitEndpoints("orders", "inventory")
	gateway := "http://" + e.envoys["public"].Address("gateway")
	balancer, batch, stranger := client(t, "127.0.0.1", nil), client(t, "127.0.0.20", nil), client(t, "127.0.0.30", nil)

	e.expect("the load balancer", balancer, http.MethodGet, gateway+"/orders/1", 200)
	if said := e.taps["orders"].said(); !bytes.HasPrefix(said, []byte("PRI * HTTP/2.0")) || e.passports("orders") != 1 {
		t.Errorf("orders was not reached in the clear with a Passport: % .60q", said)
	}
	orders := "http://" + e.inbound("orders") + "/orders/1"
	e.expect("who is not listed", stranger, http.MethodGet, orders, 0)
	e.expect("who is listed elsewhere", batch, http.MethodGet, orders, 0)

	e.expect("the load balancer", balancer, http.MethodPut, gateway+"/stock/7", 200)
	if said := e.taps["inventory"].said(); len(said) == 0 || said[0] != 0x16 || e.passports("inventory") != 1 {
		t.Errorf("inventory was not reached over TLS: % .60q", said)
	}
	inventory := "http://" + e.inbound("inventory") + "/stock/7"
	e.expect("the batch job", batch, http.MethodGet, inventory, 200)
	e.expect("the batch job where plaintext is no caller", batch, http.MethodPut, inventory, 403)
	e.expect("who is not listed", stranger, http.MethodGet, inventory, 0)
	e.expect("who is listed elsewhere", balancer, http.MethodGet, inventory, 0)
}
