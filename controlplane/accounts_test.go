package controlplane_test

import (
	"slices"
	"testing"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xdstest"
)

const tillYAML = "kind: Client\nname: till\nowner: "

// ownerOf returns the owner of the one client by which the policy that a stream is
// given next decides, and the name of the accounts that it is in.
func ownerOf(t *testing.T, c *xdstest.Client) (owner, name string) {
	t.Helper()
	var policy chancerypb.Policy
	decode(t, c.NextACK(), &policy)
	name = policy.GetAccounts()[0]
	return ownerIn(t, c, name), name
}

func ownerIn(t *testing.T, c *xdstest.Client, name string) string {
	t.Helper()
	c.Subscribe(accountsType, name)
	var accounts chancerypb.Accounts
	resp := c.NextACK()
	if slices.Contains(resp.GetRemovedResources(), name) {
		return "gone"
	}
	decode(t, resp, &accounts)
	return accounts.GetClients().GetClients()[0].GetOwner()
}

// Who decides by a revision has the accounts of that revision, whatever others
// have by then, and is told what has become of them.
func TestAccountsAreOfTheRevision(t *testing.T) {
	t.Parallel()
	docs := shop()
	docs["till"] = tillYAML + "ada\n"
	r := start(t, docs)
	first := r.accept(gateway)
	tester := r.open(gateway)
	tester.Subscribe(policyType, "*")
	owner, before := ownerOf(t, tester)
	if owner != "ada" {
		t.Fatalf("the till is %s's", owner)
	}

	alone := controlplane.Accounts(r.server)
	r.write("till", tillYAML+"bob\n")
	r.revised(gateway, first)
	owner, after := ownerOf(t, tester)
	if owner != "bob" || before == after {
		t.Errorf("afterwards the till in %s is %s's", after, owner)
	}
	late := r.open(gateway)
	late.Subscribe(policyType, "*")
	if owner, name := ownerOf(t, late); owner != "ada" || name != before {
		t.Errorf("by the proven revision, the till in %s is %s's", name, owner)
	}
	if owner := ownerIn(t, late, "clients"); owner != "bob" {
		t.Errorf("by the proven revision, the till is %s's now", owner)
	}

	r.accept(gateway)
	fresh := r.open(gateway)
	fresh.Subscribe(policyType, "*")
	if owner, name := ownerOf(t, fresh); owner != "bob" || name != after {
		t.Errorf("once all have it, the till in %s is %s's", name, owner)
	}
	if owner := ownerIn(t, fresh, before); owner != "gone" {
		t.Errorf("what no revision refers to is told: %s's", owner)
	}
	r.until("nothing else is kept", func() bool { return controlplane.Accounts(r.server) == alone })
}

// A proxy that still decides by the revision that was proven before hears what
// becomes of its accounts, though no revision refers to them any more.
func TestAccountsOfTheRevisionBefore(t *testing.T) {
	t.Parallel()
	docs := shop()
	docs["public"] += "authenticate: {apiKey: true}\n"
	r := start(t, docs)
	first := r.accept(gateway)
	told := func() (keys bool) {
		c := r.open(gateway)
		c.Subscribe(accountsType, "apikeys/00")
		return len(c.NextACK().GetResources()) > 0
	}
	if !told() {
		t.Fatal("nobody is told of the keys")
	}
	r.write("public", publicYAML+"authenticate: {anonymous: true}\n")
	second := r.revised(gateway, first)
	r.accept(gateway)
	if !told() {
		t.Error("who may be on the revision before is not told of its keys")
	}
	r.write("orders", withTimeout(ordersYAML, "7s"))
	r.revised(gateway, second)
	r.accept(gateway)
	if told() {
		t.Error("keys that are long of no use are told to a gateway")
	}
}
