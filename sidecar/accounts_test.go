package sidecar_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
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
	accounts := []*xds.Resource{
		encode(t, "clients", &chancerypb.Accounts{Of: &chancerypb.Accounts_Clients{Clients: &chancerypb.Clients{
			Clients: []*chancerypb.Client{{Id: "till", Active: true, Plan: s.plan}},
		}}}),
		encode(t, "apikeys/00", &chancerypb.Accounts{Of: &chancerypb.Accounts_ApiKeys{ApiKeys: &chancerypb.APIKeys{
			ApiKeys: []*chancerypb.APIKey{{Id: s.id, Owner: "acme", Client: "till", Hash: credential.HashAPIKey(s.key), Revoked: s.revoked}},
		}}}),
	}
	for _, r := range accounts {
		accounts = append(accounts, r.Pinned())
	}
	resources := policyOf(t, view(t, services...), func(policy *chancerypb.Policy) {
		policy.Minting.Lifetime, policy.Accounts = nil, []string{accounts[2].Name, accounts[3].Name}
		for _, route := range policy.GetRoutes() {
			route.Authentication = &chancerypb.Authentication{AnyOf: []*chancerypb.Credentials{{ApiKey: true}}}
			route.Allow = "client.plan == '" + s.demanded + "'"
		}
	})
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
	cp, a, e := startShop(t, before, "orders", "stock")
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
	cp, a, e := startShop(t, s, "orders")
	if got := e.reason("orders", s.key); got != "allowed" {
		t.Fatalf("a good key: %s", got)
	}

	s.demanded = "staff"
	refuse(t, cp, e, s, "rev-2", s.view(t, "orders", "bad"), "allowed")
	s.revoked = true
	cp.set("rev-3", s.view(t, "orders", "bad")...)
	eventually(t, "the rollout begins", func() error { return is(sidecar.Newest(a.Agent), "rev-3") })
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
	m := startMortal(t, cp)
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

// startShop is startMesh, but that API keys may come.
func startShop(t *testing.T, s shop, services ...string) (*controlPlane, *agent, *fakeEnvoy) {
	t.Helper()
	return startView(t, s.view(t, services...))
}

// afterRestart returns why a key is let in or not by an agent that starts anew,
// with rev-1 and no control plane.
func (s shop) afterRestart(t *testing.T, cp *controlPlane, a *agent) string {
	t.Helper()
	accounts := byType(s.view(t, "orders"))[accountsType]
	ofNow := slices.IndexFunc(accounts, func(r *xds.Resource) bool { return r.Name == "apikeys/00" })
	eventually(t, "the accounts are on disk", onDisk(a, accounts[ofNow]))
	cp.stop()
	a.stop()

	a.start()
	fresh := newFakeEnvoy(t, a.socket())
	fresh.connect()
	eventually(t, "rev-1 is served", func() error { return is(a.Status().AcknowledgedRevision, "rev-1") })
	return fresh.reason("orders", s.key)
}

// refuse has Envoy refuse a revision, and waits until the one before decides
// again, for this reason.
func refuse(t *testing.T, cp *controlPlane, e *fakeEnvoy, s shop, id string, resources []*xds.Resource, want string) {
	t.Helper()
	e.set(func(e *fakeEnvoy) { e.reject = func(name string) bool { return name == "bad" } })
	cp.set(id, resources...)
	eventually(t, "the revision before decides again", func() error {
		return errors.Join(is(cp.lastReport().GetHeldRevision(), id), is(nacked(cp, resource.ClusterType), "bad: bad"), is(e.reason("orders", s.key), want))
	})
}

// policyOf changes the policy among resources.
func policyOf(t *testing.T, resources []*xds.Resource, change func(*chancerypb.Policy)) []*xds.Resource {
	t.Helper()
	for i, r := range resources {
		if r.TypeURL == policyType {
			var policy chancerypb.Policy
			check(t, r.Decode(&policy))
			change(&policy)
			resources[i] = encode(t, r.Name, &policy)
		}
	}
	return resources
}

// What a refused revision does not refer to is the earlier one's all the same, and
// what becomes of it counts.
func TestRefusedRevisionTakesNoAccountsAway(t *testing.T) {
	s := newShop("internal", "internal")
	cp, _, e := startShop(t, s, "orders")
	next := policyOf(t, s.view(t, "orders", "bad"), func(p *chancerypb.Policy) {
		p.Accounts = p.GetAccounts()[:1]
		for _, route := range p.GetRoutes() {
			route.Authentication = &chancerypb.Authentication{AnyOf: []*chancerypb.Credentials{{AccessToken: "staff"}}}
		}
	})
	refuse(t, cp, e, s, "rev-2", next, "allowed")
	s.revoked = true
	cp.sets[accountsType].Apply(byType(s.view(t, "orders"))[accountsType])
	eventually(t, "a revoked key is refused", func() error { return is(e.reason("orders", s.key), "api_key_disabled") })
}

// Accounts whose document is gone are let in by nobody.
func TestAccountsThatAreGone(t *testing.T) {
	s := newShop("internal", "internal")
	cp, _, e := startShop(t, s, "orders")
	cp.sets[accountsType].Apply(nil, "apikeys/00")
	eventually(t, "the key is refused", func() error { return is(e.reason("orders", s.key), "api_key_disabled") })
	cp.sets[accountsType].Apply(byType(s.view(t, "orders"))[accountsType])
	eventually(t, "the key is back", func() error { return is(e.reason("orders", s.key), "allowed") })
}

// Nor does it matter which revision an agent begins with.
func TestRevokedAccountsAreRememberedWithNoEnvoy(t *testing.T) {
	s := newShop("internal", "internal")
	cp, a, e := startShop(t, s, "orders")
	e.disconnect()
	s.revoked = true
	cp.set("rev-2", s.view(t, "orders", "stock")...)
	eventually(t, "a revoked key is refused", func() error { return is(e.reason("orders", s.key), "api_key_disabled") })
	if got := s.afterRestart(t, cp, a); got != "api_key_disabled" {
		t.Errorf("a revoked key after the restart: %s", got)
	}
}

// A revision that waits for its turn has its accounts when that comes, though a
// newer one is on its way by then.
func TestAccountsOfARevisionThatWaits(t *testing.T) {
	s := newShop("internal", "internal")
	cp, a, e := startShop(t, s, "orders")
	time.Sleep(100 * time.Millisecond) // Envoy has lived with it
	release := sync.OnceFunc(sidecar.HoldDisk(a.Agent))
	defer release()
	next := func() []*xds.Resource {
		s.id, s.key = credential.GenerateAPIKey()
		return s.view(t, "orders")
	}
	cp.set("rev-2", next()...)
	eventually(t, "rev-2 is decided by", func() error { return is(e.reason("orders", s.key), "allowed") })
	cp.set("rev-3", next()...)
	key := s.key
	eventually(t, "rev-3 comes, and waits", func() error { return is(sidecar.Newest(a.Agent), "rev-3") })
	policies := byType(next())[policyType]
	cp.sets[policyType].Replace(policies)
	eventually(t, "so does a policy without its accounts", func() error { return is(sidecar.Holds(a.Agent, policies[0]), true) })
	cp.stop()
	release()
	eventually(t, "rev-3 is decided by", func() error { return is(e.reason("orders", key), "allowed") })
}

// What is nothing new to Envoy is not to blame for what it refuses.
func TestKeysAreNotTakenBack(t *testing.T) {
	s := newShop("internal", "internal")
	cp, _, e := startShop(t, s, "orders")
	e.disconnect()
	s.id, s.key = credential.GenerateAPIKey()
	cp.set("rev-2", s.view(t, "orders")...)
	eventually(t, "rev-2 is decided by", func() error { return is(e.reason("orders", s.key), "allowed") })
	refused := make(chan struct{}, 100)
	e.set(func(e *fakeEnvoy) {
		e.held[resource.ListenerType] = map[string]string{}
		e.reject = func(name string) bool { refused <- struct{}{}; return true }
	})
	e.connect()
	<-refused
	time.Sleep(100 * time.Millisecond) // what must not happen takes no time to wait for
	if got := e.reason("orders", s.key); got != "allowed" {
		t.Errorf("when Envoy has refused a listener: %s", got)
	}
}

// A revocation is not forgotten with the revision that Envoy refused.
func TestRevokedAccountsOverARestart(t *testing.T) {
	s := newShop("internal", "internal")
	cp, a, e := startShop(t, s, "orders")
	s.revoked = true
	refuse(t, cp, e, s, "rev-2", s.view(t, "orders", "bad"), "api_key_disabled")
	e.disconnect()
	if got := s.afterRestart(t, cp, a); got != "api_key_disabled" {
		t.Errorf("a revoked key after the restart: %s", got)
	}
}

// Nor while another revision is on its way, of which there is but the policy.
func TestRevokedAccountsAmidAChange(t *testing.T) {
	s := newShop("internal", "internal")
	cp, _, e := startShop(t, s, "orders")
	s.revoked = true
	refuse(t, cp, e, s, "rev-2", s.view(t, "orders", "bad"), "api_key_disabled")
	s.plan = "other"
	cp.sets[policyType].Replace(byType(s.view(t, "orders", "bad"))[policyType])
	cp.sets[providerType].Apply([]*xds.Resource{encode(t, "staff", &chancerypb.Provider{Name: "staff", Issuer: "https://idp.example", Audiences: []string{"x"}})})
	for range 20 {
		if got := e.reason("orders", s.key); got != "api_key_disabled" {
			t.Errorf("a revoked key: %s", got)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Keys may change faster than an Envoy proves itself: to it, nothing does. The
// accounts of revisions that decide no more are not kept.
func TestAccountsThatChangeAllTheTime(t *testing.T) {
	s := newShop("internal", "internal")
	cp, a, e := startShop(t, s, "orders")
	a.stop()
	a.probation = time.Second
	a.start()
	eventually(t, "rev-1 is acknowledged", acknowledged(cp, "rev-1"))
	cp.set("rev-2", s.view(t, "orders", "stock")...)
	eventually(t, "Envoy is given something", func() error { return is(a.Status().HeldRevision, "rev-2") })
	var last string
	most := 0
	proven := func() bool { return strings.HasPrefix(cp.lastReport().GetAcknowledgedRevision(), "key-") }
	for i := 0; i < 20 || i < 300 && !proven(); i++ {
		s.id, s.key = credential.GenerateAPIKey()
		next := s.view(t, "orders", "stock")
		last = fmt.Sprintf("key-%d", i)
		cp.set(last, next...)
		eventually(t, last+" is decided by", func() error { return is(e.reason("orders", s.key), "allowed") })
		cp.sets[accountsType].Replace(byType(next)[accountsType])
		most = max(most, sidecar.HeldAccounts(a.Agent))
		time.Sleep(100 * time.Millisecond)
	}
	if !proven() {
		t.Errorf("Envoy has lived with rev-2, and %s is acknowledged", cp.lastReport().GetAcknowledgedRevision())
	}
	if most > 7 { // now, the last two, and what was proven
		t.Errorf("%d resources with accounts were held", most)
	}
	eventually(t, "the last one is acknowledged", acknowledged(cp, last))
	eventually(t, "but for the last, all is forgotten", func() error { return is(sidecar.HeldAccounts(a.Agent), 4) })
}

func TestWithdraw(t *testing.T) {
	t.Parallel()
	early, late := timestamppb.New(time.Unix(1000, 0)), timestamppb.New(time.Unix(2000, 0))
	clients := func(list ...*chancerypb.Client) *chancerypb.Accounts {
		return &chancerypb.Accounts{Of: &chancerypb.Accounts_Clients{Clients: &chancerypb.Clients{Clients: list}}}
	}
	keys := func(list ...*chancerypb.APIKey) *chancerypb.Accounts {
		return &chancerypb.Accounts{Of: &chancerypb.Accounts_ApiKeys{ApiKeys: &chancerypb.APIKeys{ApiKeys: list}}}
	}
	users := func(list ...*chancerypb.User) *chancerypb.Accounts {
		return &chancerypb.Accounts{Of: &chancerypb.Accounts_Users{Users: &chancerypb.Users{Name: "people", Users: list}}}
	}
	client := func(active bool, apis ...string) *chancerypb.Client {
		return &chancerypb.Client{Id: "till", Active: active, Apis: apis, Plan: "p"}
	}
	key := func(hash string, revoked bool, expires *timestamppb.Timestamp) *chancerypb.APIKey {
		return &chancerypb.APIKey{Id: "k", Hash: hash, Revoked: revoked, Expires: expires}
	}
	user := func(password string, disabled bool) *chancerypb.User {
		return &chancerypb.User{Name: "ada", Password: password, Disabled: disabled}
	}
	for name, test := range map[string]struct{ had, now, want *chancerypb.Accounts }{
		"client, as it was":        {clients(client(true, "a")), clients(client(true)), clients(client(true, "a"))},
		"client, inactive":         {clients(client(true, "a")), clients(client(false, "a")), clients(client(false, "a"))},
		"client, active again":     {clients(client(false, "a")), clients(client(true, "a")), clients(client(false, "a"))},
		"client, not registered":   {clients(client(true, "a")), clients(), clients(client(true))},
		"client, and nothing is":   {clients(client(true, "a")), nil, clients(client(false, "a"))},
		"key, as it was":           {keys(key("a", false, late)), keys(key("a", false, late)), keys(key("a", false, late))},
		"key, revoked":             {keys(key("a", false, nil)), keys(key("a", true, nil)), keys(key("a", true, nil))},
		"key, revoked no more":     {keys(key("a", true, nil)), keys(key("a", false, nil)), keys(key("a", true, nil))},
		"key, gone":                {keys(key("a", false, late)), keys(), keys(key("a", true, late))},
		"key, and nothing is":      {keys(key("a", false, late)), nil, keys(key("a", true, late))},
		"key, another":             {keys(key("a", false, nil)), keys(key("b", false, nil)), keys(key("a", true, nil))},
		"key, with an end":         {keys(key("a", false, nil)), keys(key("a", false, late)), keys(key("a", false, late))},
		"key, with an earlier end": {keys(key("a", false, late)), keys(key("a", false, early)), keys(key("a", false, early))},
		"key, with no end":         {keys(key("a", false, late)), keys(key("a", false, nil)), keys(key("a", false, late))},
		"user, as it was":          {users(user("a", false)), users(user("a", false)), users(user("a", false))},
		"user, disabled":           {users(user("a", false)), users(user("a", true)), users(user("a", true))},
		"user, enabled again":      {users(user("a", true)), users(user("a", false)), users(user("a", true))},
		"user, another password":   {users(user("a", false)), users(user("b", false)), users(user("a", true))},
		"user, gone":               {users(user("a", false)), users(), users(user("a", true))},
		"user, and nothing is":     {users(user("a", false)), nil, users(user("a", true))},
	} {
		sidecar.Withdraw(test.had, test.now)
		if diff := cmp.Diff(test.want, test.had, protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
