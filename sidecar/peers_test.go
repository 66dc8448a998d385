package sidecar_test

import (
	"maps"
	"path/filepath"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/sidecar"
)

func TestPeersOfWhichConnectionsEnd(t *testing.T) {
	t.Parallel()
	authority, err := ca.Open(ca.Config{Dir: filepath.Join(t.TempDir(), "ca"), TrustDomain: trustDomain})
	check(t, err)
	defer authority.Close()
	var p sidecar.Peers
	// take tells which services' generations are others than before.
	before := map[string]string{}
	take := func(wantChanged bool, want ...string) {
		t.Helper()
		trust, err := identity.ParseTrust(authority.Trust())
		check(t, err)
		generations, changed := p.Take(trust, nil)
		if changed != wantChanged {
			t.Errorf("changed: %v, want %v", changed, wantChanged)
		}
		got := map[string]bool{}
		for _, service := range []string{"orders", "stock", envoy.AnyService} {
			if now := generations[service]; now != before[service] {
				got[service] = true
			}
		}
		wanted := map[string]bool{}
		for _, service := range want {
			wanted[service] = true
		}
		if !maps.Equal(got, wanted) {
			t.Errorf("new generations of %v, want %v", got, wanted)
		}
		before = generations
		var fresh sidecar.Peers
		if started, _ := fresh.Take(trust, nil); len(want) == 1 && want[0] != envoy.AnyService && !maps.Equal(started, generations) {
			t.Errorf("an agent that starts finds %v, not %v", started, generations)
		}
	}
	take(false)
	orders := issueFrom(t, authority, identity.ID{Role: identity.RoleService, Name: "orders"})
	again := issueFrom(t, authority, identity.ID{Role: identity.RoleService, Name: "orders"})
	gateway := issueFrom(t, authority, public)
	take(false)
	revoke(t, authority, orders.Serial)
	take(true, "orders")
	take(false)
	revoke(t, authority, gateway.Serial)
	take(false) // nobody's upstream
	revoke(t, authority, again.Serial)
	take(true, "orders")

	old := authority.Authorities()[0].ID
	next, err := authority.Prepare(false)
	check(t, err)
	take(false)
	check(t, authority.Activate(next.ID))
	check(t, authority.Taint(old))
	take(false)
	check(t, authority.Revoke(old))
	take(true, "orders", envoy.AnyService)
}

func issueFrom(t *testing.T, authority *ca.CA, id identity.ID) ca.Certificate {
	t.Helper()
	_, certificate, err := authority.Sign(ca.Request{ID: id, Key: otherKey(t), TTL: time.Hour})
	check(t, err)
	return certificate
}

func revoke(t *testing.T, authority *ca.CA, serial string) {
	t.Helper()
	_, err := authority.RevokeSerial(serial, "test")
	check(t, err)
}

// What a workload had open with a certificate that was revoked is refused for as
// long as it stays open: it must not, once there is another.
func TestConnectionsOfTheOwnRevokedCertificateEnd(t *testing.T) {
	t.Parallel()
	authority, err := ca.Open(ca.Config{Dir: filepath.Join(t.TempDir(), "ca"), TrustDomain: trustDomain})
	check(t, err)
	defer authority.Close()
	web := identity.ID{Role: identity.RoleService, Name: "web"}
	own := func() (*identity.SVID, string) {
		key := newKey(t)
		chain, certificate, err := authority.Sign(ca.Request{ID: web, Key: key.Public(), TTL: time.Hour})
		check(t, err)
		svid, err := identity.ParseSVID(web, key, chain)
		check(t, err)
		return svid, certificate.Serial
	}
	var p sidecar.Peers
	take := func(own *identity.SVID) (string, bool) {
		t.Helper()
		trust, err := identity.ParseTrust(authority.Trust())
		check(t, err)
		generations, changed := p.Take(trust, own)
		return generations[envoy.AnyService], changed
	}
	first, serial := own()
	renewed, _ := own()
	if _, changed := take(first); changed {
		t.Error("changed at the start")
	}
	if _, changed := take(renewed); changed {
		t.Error("changed by a renewal")
	}
	take(first)
	// Of its lineage, the renewed one stays: it stands for one that was attested
	// anew.
	revoke(t, authority, serial)
	before, _ := take(first)
	if after, changed := take(renewed); !changed || after == before {
		t.Error("not changed by another certificate")
	}
	if _, changed := take(renewed); changed {
		t.Error("changed twice")
	}
}
