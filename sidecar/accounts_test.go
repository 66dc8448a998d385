package sidecar_test

import (
	"errors"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/sidecar"
)

// shop is a gateway's view in which API keys of clients with a plan may come.
type shop struct {
	id, key string
	// plan is the client's, and demanded the routes'.
	plan, demanded string
	revoked        bool
}

func newShop(plan, demanded string) shop {
	id, key := credential.GenerateAPIKey()
	return shop{id: id, key: key, plan: plan, demanded: demanded}
}

func (s shop) view(t *testing.T, services ...string) []*xds.Resource {
	t.Helper()
	pinned := func(name string, accounts *chancerypb.Accounts) *xds.Resource {
		r, err := xds.NewPinned(name, accounts)
		check(t, err)
		return r
	}
	accounts := []*xds.Resource{
		pinned("clients", &chancerypb.Accounts{Of: &chancerypb.Accounts_Clients{Clients: &chancerypb.Clients{
			Clients: []*chancerypb.Client{{Id: "till", Active: true, Plan: s.plan}},
		}}}),
		pinned("apikeys/00", &chancerypb.Accounts{Of: &chancerypb.Accounts_ApiKeys{ApiKeys: &chancerypb.APIKeys{
			ApiKeys: []*chancerypb.APIKey{{Id: s.id, Owner: "acme", Client: "till", Hash: credential.HashAPIKey(s.key), Revoked: s.revoked}},
		}}}),
	}
	resources := view(t, services...)
	for i, r := range resources {
		if r.TypeURL != policyType {
			continue
		}
		var policy chancerypb.Policy
		check(t, r.Decode(&policy))
		policy.Minting.Lifetime, policy.Accounts = nil, []string{accounts[0].Name, accounts[1].Name}
		for _, route := range policy.GetRoutes() {
			route.Authentication = &chancerypb.Authentication{AnyOf: []*chancerypb.Credentials{{ApiKey: true}}}
			route.Allow = "client.plan == '" + s.demanded + "'"
		}
		resources[i] = encode(t, r.Name, &policy)
	}
	return append(resources, accounts...)
}

// reason asks about a route with a key, and returns why it is answered so.
func (e *fakeEnvoy) reason(route, key string) string {
	e.t.Helper()
	resp, err := authv3.NewAuthorizationClient(e.conn).Check(e.t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: map[string]string{envoy.ContextPolicy: public.String(), envoy.ContextRoute: route},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/" + route, Host: "shop.example",
			Headers: map[string]string{":method": "GET", ":path": "/" + route, ":authority": "shop.example", "x-api-key": key},
		}},
	}}, grpc.WaitForReady(true))
	if err != nil {
		return err.Error()
	}
	return resp.GetDynamicMetadata().GetFields()["reason"].GetStringValue()
}

// A plan is renamed, in rules and clients, to what was another's: whoever mixes
// the two lets in whom neither does.
func TestAccountsAreOfTheRevision(t *testing.T) {
	before := newShop("partner", "internal")
	after := before
	after.plan, after.demanded = "internal", "staff"
	cp := newControlPlane(t, public)
	cp.set("rev-1", before.view(t, "orders", "stock")...)
	cp.start()
	a := newAgent(t, cp)
	a.start()
	e := newFakeEnvoy(t, a.socket())
	e.connect()
	eventually(t, "rev-1 is acknowledged", acknowledged(cp, "rev-1"))
	denied := func(when string) {
		t.Helper()
		for _, route := range []string{"orders", "stock"} {
			if got := e.reason(route, before.key); got != "policy_denied" {
				t.Errorf("%s: %s of /%s", when, got, route)
			}
		}
	}
	denied("by rev-1")

	cp.sets[accountsType].Replace(byType(after.view(t, "orders"))[accountsType])
	time.Sleep(50 * time.Millisecond) // what must not happen takes no time to wait for
	denied("accounts ahead of their revision")

	hold := make(chan struct{})
	e.set(func(e *fakeEnvoy) { e.hold = hold })
	cp.set("rev-2", after.view(t, "orders", "returns")...)
	eventually(t, "the rollout begins", func() error { return is(a.Status().HeldRevision, "rev-2") })
	denied("amid the rollout")
	e.set(func(e *fakeEnvoy) { e.hold = nil })
	close(hold)
	eventually(t, "rev-2 is acknowledged", acknowledged(cp, "rev-2"))
	after.demanded = "internal"
	cp.set("rev-3", after.view(t, "orders")...)
	eventually(t, "rules and clients agree", func() error { return is(e.reason("orders", after.key), "allowed") })
}

// What Envoy refuses is taken back, but for who was revoked with it.
func TestRefusedRevisionRevokesAllTheSame(t *testing.T) {
	s := newShop("internal", "internal")
	cp := newControlPlane(t, public)
	cp.set("rev-1", s.view(t, "orders")...)
	cp.start()
	a := newAgent(t, cp)
	a.start()
	e := newFakeEnvoy(t, a.socket())
	e.connect()
	eventually(t, "rev-1 is acknowledged", acknowledged(cp, "rev-1"))
	if got := e.reason("orders", s.key); got != "allowed" {
		t.Fatalf("a good key: %s", got)
	}

	e.set(func(e *fakeEnvoy) { e.reject = func(name string) bool { return name == "bad" } })
	s.demanded = "staff"
	cp.set("rev-2", s.view(t, "orders", "bad")...)
	eventually(t, "rev-1 decides again", func() error {
		return errors.Join(is(nacked(cp, resource.ClusterType), "bad: bad"), is(e.reason("orders", s.key), "allowed"))
	})
	s.revoked = true
	cp.set("rev-3", s.view(t, "orders", "bad")...)
	eventually(t, "the rollout begins", func() error { return is(a.Status().HeldRevision, "rev-3") })
	eventually(t, "the NACK is reported", func() error { return is(nacked(cp, resource.ClusterType), "bad: bad") })
	for range 20 { // by rev-3, and then by rev-1
		if got := e.reason("orders", s.key); got != "api_key_disabled" {
			t.Errorf("a revoked key: %s", got)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// The revision that an agent goes back to needs its own accounts, also after a
// restart.
func TestRestoredRevisionHasItsAccounts(t *testing.T) {
	t.Parallel()
	s := newShop("internal", "internal")
	cp := newControlPlane(t, public)
	cp.set("rev-1", s.view(t, "orders")...)
	cp.start()
	m := startMortal(t, cp, 2*time.Second)
	eventually(t, "rev-1 is acknowledged", acknowledged(cp, "rev-1"))
	s.plan = "staff" // whom rev-2 does not let in
	next := s.view(t, "orders", "stock")
	cp.set("rev-2", next...)
	cp.sets[accountsType].Replace(byType(next)[accountsType])
	eventually(t, "Envoy takes rev-2", func() error { return is(m.names(), secondView) })
	eventually(t, "the agent knows", func() error { return lastGoodFile(m.agent, "acknowledged") })
	cp.stop()
	m.disconnect()
	m.agent.stop()

	m.agent.start()
	m.live(t, 0)
	eventually(t, "rev-2 decides", func() error { return is(m.reason("orders", s.key), "policy_denied") })
	eventually(t, "Envoy takes rev-2 from disk", func() error { return is(m.names(), secondView) })
	m.die(t)
	eventually(t, "and again", func() error { return is(m.names(), secondView) })
	m.die(t)
	eventually(t, "rev-1 decides by its own accounts", func() error { return is(m.reason("orders", s.key), "allowed") })
}

func TestWithdraw(t *testing.T) {
	t.Parallel()
	early, late := timestamppb.New(time.Unix(1000, 0)), timestamppb.New(time.Unix(2000, 0))
	accounts := func(client *chancerypb.Client, key *chancerypb.APIKey, user *chancerypb.User) (list []*chancerypb.Accounts) {
		if client != nil {
			list = append(list, &chancerypb.Accounts{Of: &chancerypb.Accounts_Clients{Clients: &chancerypb.Clients{Clients: []*chancerypb.Client{client}}}})
		}
		if key != nil {
			list = append(list, &chancerypb.Accounts{Of: &chancerypb.Accounts_ApiKeys{ApiKeys: &chancerypb.APIKeys{ApiKeys: []*chancerypb.APIKey{key}}}})
		}
		if user != nil {
			list = append(list, &chancerypb.Accounts{Of: &chancerypb.Accounts_Users{Users: &chancerypb.Users{Name: "people", Users: []*chancerypb.User{user}}}})
		}
		return list
	}
	client := func(active bool) *chancerypb.Client { return &chancerypb.Client{Id: "till", Active: active, Plan: "p"} }
	key := func(hash string, revoked bool, expires *timestamppb.Timestamp) *chancerypb.APIKey {
		return &chancerypb.APIKey{Id: "k", Hash: hash, Revoked: revoked, Expires: expires}
	}
	user := func(password string, disabled bool) *chancerypb.User {
		return &chancerypb.User{Name: "ada", Password: password, Disabled: disabled}
	}
	elsewhere := accounts(nil, nil, user("a", false))
	elsewhere[0].GetUsers().Name = "others"
	tests := map[string]struct{ had, newer, want []*chancerypb.Accounts }{
		"all the same":        {accounts(client(true), key("a", false, late), user("a", false)), accounts(client(true), key("a", false, late), user("a", false)), accounts(client(true), key("a", false, late), user("a", false))},
		"gone":                {accounts(client(true), key("a", false, late), user("a", false)), nil, accounts(client(false), key("a", true, late), user("a", true))},
		"ended":               {accounts(client(true), key("a", false, late), user("a", false)), accounts(client(false), key("a", true, late), user("a", true)), accounts(client(false), key("a", true, late), user("a", true))},
		"another secret":      {accounts(nil, key("a", false, nil), user("a", false)), accounts(nil, key("b", false, nil), user("b", false)), accounts(nil, key("a", true, nil), user("a", true))},
		"not given back":      {accounts(client(false), key("a", true, early), user("a", true)), accounts(client(true), key("a", false, late), user("a", false)), accounts(client(false), key("a", true, early), user("a", true))},
		"an end":              {accounts(nil, key("a", false, nil), nil), accounts(nil, key("a", false, late), nil), accounts(nil, key("a", false, late), nil)},
		"an earlier end":      {accounts(nil, key("a", false, late), nil), accounts(nil, key("a", false, early), nil), accounts(nil, key("a", false, early), nil)},
		"no end any more":     {accounts(nil, key("a", false, late), nil), accounts(nil, key("a", false, nil), nil), accounts(nil, key("a", false, late), nil)},
		"in another document": {accounts(nil, nil, user("a", false)), elsewhere, accounts(nil, nil, user("a", true))},
	}
	for name, test := range tests {
		sidecar.Withdraw(test.had, test.newer)
		if diff := cmp.Diff(test.want, test.had, protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
