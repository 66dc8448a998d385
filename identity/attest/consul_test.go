package attest_test

import (
	"context"
	"crypto"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/chancery-mesh/chancery/identity/attest"
	"github.com/chancery-mesh/chancery/internal/consultest"
)

// agent is a Consul client that registered an instance.
type agent struct{ *api.Client }

// register returns an agent with a configuration's token that registered an
// instance with much to lose.
func register(t *testing.T, config *api.Config, service, id string) agent {
	t.Helper()
	client, err := attest.NewConsulClient(config)
	if err != nil {
		t.Fatal(err)
	}
	err = client.Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: service, ID: id, Port: 9000, Address: "127.0.0.1", Tags: []string{"v1"},
		Meta:              map[string]string{"version": "1"},
		TaggedAddresses:   map[string]api.ServiceAddress{"mesh": {Address: "127.0.0.1", Port: 9001}},
		Weights:           &api.AgentWeights{Passing: 7, Warning: 3},
		EnableTagOverride: true,
		Checks: api.AgentServiceChecks{
			{CheckID: id + "-ttl", TTL: "1h", Status: api.HealthPassing, Notes: "kept"},
			{CheckID: id + "-tcp", TCP: "127.0.0.1:1", Interval: "1h", Status: api.HealthWarning},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return agent{client}
}

// prove answers a challenge of a for key, and takes the nonce out at the end.
func (c agent) prove(t *testing.T, a *attest.Consul, service, id string, key crypto.PublicKey) attest.Proof {
	t.Helper()
	nonce, lifetime, err := a.Challenge(service, id, key)
	if err != nil || lifetime <= 0 {
		t.Fatal(lifetime, err)
	}
	p := attest.Proof{Service: service, ServiceID: id, Nonce: nonce}
	cleanup, err := attest.Prove(t.Context(), c.Client, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cleanup(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p
}

func newConsul(t *testing.T, c attest.ConsulConfig) *attest.Consul {
	t.Helper()
	a, err := attest.NewConsul(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// verify returns why a proof is refused, which who proves does not hear. It does
// not look often for registrations that will not come.
func verify(t *testing.T, a *attest.Consul, p attest.Proof, key crypto.PublicKey) error {
	t.Helper()
	defer attest.LookOnceAgain(a)()
	err := a.Verify(t.Context(), p, key, "127.0.0.1")
	const heard = "consul does not show that this agent may write its service; the control plane's audit log says why"
	if err != nil && err.Error() != heard {
		t.Errorf("the agent hears %q", err)
	}
	return errors.Unwrap(err)
}

const readAll = `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`

func TestConsulWithACLs(t *testing.T) {
	t.Parallel()
	server := consultest.StartWithACLs(t)
	log, events := openAudit(t)
	a := newConsul(t, attest.ConsulConfig{API: server.Token(t, readAll), Audit: log})
	inventory := register(t, server.ServiceToken(t, "inventory"), "inventory", "inventory-1")
	orders := register(t, server.ServiceToken(t, "orders"), "orders", "orders-1")
	key := newKey(t).Public()

	t.Run("its own service, once", func(t *testing.T) {
		p := inventory.prove(t, a, "inventory", "inventory-1", key)
		if err := a.Verify(t.Context(), p, key, "127.0.0.1"); err != nil {
			t.Fatal(err)
		}
		refused(t, verify(t, a, p, key), "used already")
	})
	t.Run("bound to another key", func(t *testing.T) {
		p := inventory.prove(t, a, "inventory", "inventory-1", key)
		refused(t, verify(t, a, p, newKey(t).Public()), "another control plane, instance or key")
	})
	t.Run("another's nonce in its own registration", func(t *testing.T) {
		nonce, _, err := a.Challenge("orders", "orders-1", key)
		if err != nil {
			t.Fatal(err)
		}
		p := attest.Proof{Service: "inventory", ServiceID: "inventory-1", Nonce: nonce}
		if _, err := attest.Prove(t.Context(), inventory.Client, p); err != nil {
			t.Fatal(err)
		}
		refused(t, verify(t, a, p, key), "another control plane, instance or key")
		p.Service, p.ServiceID = "orders", "orders-1"
		refused(t, verify(t, a, p, key), "does not have the nonce")
		p.ServiceID = "inventory-1"
		refused(t, verify(t, a, p, key), "another control plane, instance or key")
	})
	t.Run("a service that its token does not write", func(t *testing.T) {
		nonce, _, err := a.Challenge("orders", "orders-1", key)
		if err != nil {
			t.Fatal(err)
		}
		p := attest.Proof{Service: "orders", ServiceID: "orders-1", Nonce: nonce}
		_, err = attest.Prove(t.Context(), inventory.Client, p)
		refused(t, err, "service:write")
		refused(t, verify(t, a, p, key), "does not have the nonce")
	})
	t.Run("an instance of another service", func(t *testing.T) {
		nonce, _, err := a.Challenge("orders", "inventory-1", key)
		if err != nil {
			t.Fatal(err)
		}
		p := attest.Proof{Service: "orders", ServiceID: "inventory-1", Nonce: nonce}
		_, err = attest.Prove(t.Context(), inventory.Client, p)
		refused(t, err, `is of service "inventory"`)
		putNonce(t, inventory, "inventory", p)
		refused(t, verify(t, a, p, key), "no instance")
	})
	t.Run("a service that differs in case", func(t *testing.T) {
		// Consul's catalog gives it to who asks for "orders".
		shout := register(t, server.ServiceToken(t, "ORDERS"), "ORDERS", "shout-1")
		nonce, _, err := a.Challenge("orders", "shout-1", key)
		if err != nil {
			t.Fatal(err)
		}
		p := attest.Proof{Service: "orders", ServiceID: "shout-1", Nonce: nonce}
		putNonce(t, shout, "ORDERS", p)
		refused(t, verify(t, a, p, key), "no instance")
	})
	t.Run("a nonce of another control plane", func(t *testing.T) {
		other := newConsul(t, attest.ConsulConfig{API: server.Token(t, readAll)})
		p := orders.prove(t, other, "orders", "orders-1", key)
		refused(t, verify(t, a, p, key), "another control plane")
	})
	t.Run("a control plane that may not read", func(t *testing.T) {
		blind := newConsul(t, attest.ConsulConfig{API: server.Token(t, `key "x" { policy = "read" }`)})
		p := orders.prove(t, blind, "orders", "orders-1", key)
		refused(t, verify(t, blind, p, key), "service:read")
	})
	t.Run("an instance that is not there", func(t *testing.T) {
		_, err := attest.Prove(t.Context(), orders.Client, attest.Proof{Service: "orders", ServiceID: "orders-2", Nonce: "n"})
		refused(t, err, "register service")
	})
	done := 0
	for _, e := range events() {
		if e.Outcome == "done" {
			done++
		}
	}
	if done != 1 {
		t.Errorf("%d proofs were taken, want 1", done)
	}
}

// putNonce writes a nonce as only an attacker's agent would.
func putNonce(t *testing.T, c agent, service string, p attest.Proof) {
	t.Helper()
	err := c.Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: service, ID: p.ServiceID, Meta: map[string]string{attest.MetaKey: p.Nonce},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestProveKeepsTheRegistration(t *testing.T) {
	t.Parallel()
	server := consultest.StartWithACLs(t)
	client := register(t, server.ServiceToken(t, "orders"), "orders", "orders-1")
	type state struct {
		Service *api.AgentService
		Checks  map[string]*api.AgentCheck
	}
	now := func() (s state) {
		var err1, err2 error
		s.Service, _, err1 = client.Agent().Service("orders-1", nil)
		s.Checks, err2 = client.Agent().Checks()
		if err1 != nil || err2 != nil || len(s.Checks) != 2 {
			t.Fatal(len(s.Checks), err1, err2)
		}
		return s
	}
	before := now()
	cleanup, err := attest.Prove(t.Context(), client.Client, attest.Proof{Service: "orders", ServiceID: "orders-1", Nonce: "n"})
	if err != nil {
		t.Fatal(err)
	}
	during := now()
	if during.Service.Meta[attest.MetaKey] != "n" {
		t.Errorf("metadata is %v", during.Service.Meta)
	}
	if diff := cmp.Diff(before.Checks, during.Checks); diff != "" {
		t.Errorf("checks changed (-before +during):\n%s", diff)
	}
	// What another writes meanwhile stays, too.
	if err := client.Agent().UpdateTTL("orders-1-ttl", "busy", api.HealthWarning); err != nil {
		t.Fatal(err)
	}
	if err := cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := now()
	if got := after.Checks["orders-1-ttl"]; got.Status != api.HealthWarning || got.Output != "busy" {
		t.Errorf("check is %+v", got)
	}
	// ContentHash covers all that was registered.
	if diff := cmp.Diff(before.Service, after.Service); diff != "" {
		t.Errorf("registration changed (-before +after):\n%s", diff)
	}
}

func TestConsulThatAnybodyWrites(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		start func(testing.TB) *consultest.Server
		open  func(*testing.T, *consultest.Server)
	}{
		"without ACLs":         {start: consultest.Start},
		"default policy allow": {start: consultest.StartWithOpenACLs},
		"anonymous token that writes": {start: consultest.StartWithACLs, open: func(t *testing.T, s *consultest.Server) {
			t.Helper()
			s.Anybody(t, `service "orders" { policy = "write" }`)
		}},
		"anonymous token that writes, behind one that does not": {start: consultest.StartWithACLs, open: func(t *testing.T, s *consultest.Server) {
			t.Helper()
			s.Anybody(t, `service "orders" { policy = "write" }`)
			if _, err := s.Client.Agent().UpdateDefaultACLToken(s.ServiceToken(t, "inventory").Token, nil); err != nil {
				t.Fatal(err)
			}
		}},
		"default token that writes": {start: consultest.StartWithACLs, open: func(t *testing.T, s *consultest.Server) {
			t.Helper()
			if _, err := s.Client.Agent().UpdateDefaultACLToken(s.ServiceToken(t, "orders").Token, nil); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := tt.start(t)
			if tt.open != nil {
				tt.open(t, server)
			}
			key := newKey(t).Public()
			a := newConsul(t, attest.ConsulConfig{API: server.Config()})
			client := register(t, server.Config(), "orders", "orders-1")
			p := client.prove(t, a, "orders", "orders-1", key)
			refused(t, verify(t, a, p, key), "lets anybody write it")

			a = newConsul(t, attest.ConsulConfig{API: server.Config(), WithoutACLs: true})
			p = client.prove(t, a, "orders", "orders-1", key)
			if err := a.Verify(t.Context(), p, key, "127.0.0.1"); err != nil {
				t.Errorf("WithoutACLs: %v", err)
			}
		})
	}
}

func TestConsulNonceExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newConsul(t, attest.ConsulConfig{API: consultest.NewFake(t).Config(), WithoutACLs: true})
		key := newKey(t).Public()
		nonce, lifetime, err := a.Challenge("orders", "orders-1", key)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(lifetime + time.Second)
		p := attest.Proof{Service: "orders", ServiceID: "orders-1", Nonce: nonce}
		refused(t, verify(t, a, p, key), "nonce expired")
	})
}

// Whoever has a nonce and writes it nowhere costs Consul little, and some of them
// together not more than a few.
func TestConsulIsAskedLittle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := consultest.NewFake(t)
		var reads atomic.Int32
		fake.Break(func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				reads.Add(1)
				_, _ = w.Write([]byte("[]"))
			})
		})
		a := newConsul(t, attest.ConsulConfig{API: fake.Config(), WithoutACLs: true})
		key := newKey(t).Public()
		ask := func() error {
			nonce, _, err := a.Challenge("orders", "orders-1", key)
			if err != nil {
				return err
			}
			return errors.Unwrap(a.Verify(t.Context(), attest.Proof{Service: "orders", ServiceID: "orders-1", Nonce: nonce}, key, ""))
		}
		refused(t, ask(), "no instance")
		if n := reads.Swap(0); n > 5 {
			t.Errorf("one nonce costs %d reads", n)
		}
		var refusedAtOnce atomic.Int32
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if err := ask(); err != nil && strings.Contains(err.Error(), "others are waited for") {
					refusedAtOnce.Add(1)
				}
			})
		}
		wg.Wait()
		if n := refusedAtOnce.Load(); n != 100-32 {
			t.Errorf("%d were not waited for", n)
		}
		if n := reads.Load(); n > 100*2+32*3 {
			t.Errorf("a hundred nonces cost %d reads", n)
		}
	})
}

func TestChallengeRefuses(t *testing.T) {
	t.Parallel()
	a := newConsul(t, attest.ConsulConfig{})
	key := newKey(t).Public()
	for name, tt := range map[string]struct {
		service, id string
		key         crypto.PublicKey
	}{
		"upper case":          {"Orders", "orders-1", key},
		"a path":              {"orders/../inventory", "orders-1", key},
		"no service":          {"", "orders-1", key},
		"no instance":         {"orders", "", key},
		"a filter of its own": {"orders", `x" or ServiceID != "`, key},
		"a long instance":     {"orders", strings.Repeat("a", 256), key},
		"no key":              {"orders", "orders-1", nil},
	} {
		if _, _, err := a.Challenge(tt.service, tt.id, tt.key); err == nil {
			t.Errorf("%s: challenged", name)
		}
	}
}

func TestVerifyRefusesNoncesThatAreNone(t *testing.T) {
	t.Parallel()
	a := newConsul(t, attest.ConsulConfig{WithoutACLs: true})
	key := newKey(t).Public()
	nonce, _, err := a.Challenge("orders", "orders-1", key)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "x", nonce + "A", nonce[:len(nonce)-2], "!" + nonce[1:], "B" + nonce[1:], nonce + "\n"} {
		p := attest.Proof{Service: "orders", ServiceID: "orders-1", Nonce: bad}
		refused(t, verify(t, a, p, key), "nonce")
	}
}
