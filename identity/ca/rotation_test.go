package ca_test

import (
	"crypto/x509"
	"encoding/hex"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
)

// inAllStates returns a CA that has an authority in each state that there is, by state.
func inAllStates(t *testing.T) (*ca.CA, map[ca.State]string) {
	t.Helper()
	authority := open(t, config(t))
	ids := []string{authority.Authorities()[0].ID}
	for range 3 {
		a, err := authority.Prepare(false)
		must(t, err)
		must(t, authority.Activate(a.ID))
		ids = append(ids, a.ID)
	}
	must(t, authority.Taint(ids[0]))
	must(t, authority.Revoke(ids[0]))
	must(t, authority.Taint(ids[1]))
	prepared, err := authority.Prepare(false)
	must(t, err)
	return authority, map[ca.State]string{
		ca.Revoked: ids[0], ca.Tainted: ids[1], ca.Old: ids[2], ca.Active: ids[3], ca.Prepared: prepared.ID, "none": "0123",
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTransitions(t *testing.T) {
	t.Parallel()
	const legal = ""
	steps := map[string]struct {
		do   func(*ca.CA, string) error
		want map[ca.State]string // part of the error
	}{
		"activate": {(*ca.CA).Activate, map[ca.State]string{
			ca.Prepared: legal, ca.Active: "prepare one first", ca.Old: "prepare one first",
			ca.Tainted: "prepare one first", ca.Revoked: "prepare one first", "none": "there is no authority",
		}},
		"taint": {(*ca.CA).Taint, map[ca.State]string{
			ca.Prepared: "revoke it, or activate it", ca.Active: "activate another first", ca.Old: legal,
			ca.Tainted: "already", ca.Revoked: "already", "none": "there is no authority",
		}},
		"revoke": {(*ca.CA).Revoke, map[ca.State]string{
			ca.Prepared: legal, ca.Active: "taint this one, first", ca.Old: "taint it first",
			ca.Tainted: legal, ca.Revoked: "already", "none": "there is no authority",
		}},
	}
	for name, step := range steps {
		for state, want := range step.want {
			t.Run(name+" "+string(state), func(t *testing.T) {
				t.Parallel()
				authority, ids := inAllStates(t)
				before := authority.Trust()
				switch err := step.do(authority, ids[state]); {
				case want == legal:
					must(t, err)
				case err == nil || !strings.Contains(err.Error(), want):
					t.Errorf("error is %v, want %q", err, want)
				case authority.Trust() != before:
					t.Error("a step that is refused changed trust")
				}
			})
		}
	}
	t.Run("prepare", func(t *testing.T) {
		t.Parallel()
		authority, _ := inAllStates(t)
		if _, err := authority.Prepare(false); err == nil || !strings.Contains(err.Error(), "activate it, or revoke it, first") {
			t.Errorf("Prepare beside a prepared one: %v", err)
		}
	})
}

// Each step shows in Trust at the sequence that the authority says.
func TestTrustShowsAuthorities(t *testing.T) {
	t.Parallel()
	authority, ids := inAllStates(t)
	trust, err := identity.ParseTrust(authority.Trust())
	must(t, err)
	for state, id := range ids {
		if want := state != ca.Revoked && state != "none"; trust.HasAuthority(id) != want {
			t.Errorf("trust has the %s authority: %v", state, !want)
		}
		if trust.IsTainted(id) != (state == ca.Tainted) {
			t.Errorf("%s authority is tainted: %v", state, trust.IsTainted(id))
		}
	}
	for _, a := range authority.Authorities() {
		if ids[a.State] != a.ID || a.Sequence == 0 || a.Sequence > trust.Sequence() {
			t.Errorf("authority is %+v at sequence %d", a, trust.Sequence())
		}
	}
	if n := len(trust.Roots()); n != 1 {
		t.Errorf("%d roots, want one for all", n)
	}
}

// An authority that is removed takes with it what it signed (row S07).
func TestRevokedAuthority(t *testing.T) {
	t.Parallel()
	authority := open(t, config(t))
	first := authority.Authorities()[0].ID
	chain, cert := sign(t, authority, request(t, orders))
	verify := func() error {
		trust, err := identity.ParseTrust(authority.Trust())
		must(t, err)
		_, err = trust.Verify(chain, time.Now())
		return err
	}
	next, err := authority.Prepare(false)
	must(t, err)
	if byOld, _ := sign(t, authority, request(t, orders)); hex.EncodeToString(byOld[0].AuthorityKeyId) != first {
		t.Error("an authority signs before it is activated")
	}
	must(t, authority.Activate(next.ID))
	if byNew, c := sign(t, authority, request(t, orders)); hex.EncodeToString(byNew[0].AuthorityKeyId) != next.ID || c.Authority != next.ID {
		t.Error("the activated authority does not sign")
	}
	must(t, authority.Taint(first))
	must(t, verify())
	must(t, authority.Revoke(first))
	if err := verify(); err == nil {
		t.Error("a certificate of a revoked authority verifies")
	}
	if _, _, err := authority.Sign(renewal(t, cert)); err == nil || !strings.Contains(err.Error(), "attest again") {
		t.Errorf("renewal of a certificate of a revoked authority: %v", err)
	}
	for _, a := range authority.Live() {
		if a.Authority == first {
			t.Errorf("%s of a revoked authority is live", a.Serial)
		}
	}
}

func TestRoots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t)
		cfg.Lifetimes = ca.Lifetimes{Authority: time.Hour, Root: 3 * time.Hour}
		authority := open(t, cfg)
		first := authority.Authorities()[0]
		rotate := func(newRoot bool) ca.Authority {
			t.Helper()
			a, err := authority.Prepare(newRoot)
			must(t, err)
			must(t, authority.Activate(a.ID))
			return a
		}
		if a := rotate(false); a.Root != first.Root {
			t.Error("a root that outlives the next authority is replaced")
		}
		asked := rotate(true)
		if asked.Root == first.Root || len(authority.Trust().GetRoots()) != 2 {
			t.Error("there is no new root, or the old one is gone while its authorities are there")
		}
		time.Sleep(2*time.Hour + time.Minute)
		must(t, authority.Expire())
		if n := len(authority.Authorities()); n != 1 {
			t.Errorf("%d authorities, want the active one alone, though it has ended", n)
		}
		if _, _, err := authority.Sign(request(t, orders)); err == nil || !strings.Contains(err.Error(), "prepare and activate another") {
			t.Errorf("Sign by an authority that has ended: %v", err)
		}
		if a := rotate(false); a.Root == asked.Root || time.Until(a.NotAfter) < time.Hour-time.Second {
			t.Error("the root that would end before the authority is kept")
		}
		chain, _ := sign(t, authority, request(t, orders))
		assertCA(t, chain[1], 0)
		assertCA(t, chain[2], 1)
	})
}

// assertCA checks a certificate of the CA's own.
func assertCA(t *testing.T, c *x509.Certificate, pathLen int) {
	t.Helper()
	switch {
	case !c.IsCA || c.MaxPathLen != pathLen || c.MaxPathLenZero != (pathLen == 0):
		t.Errorf("CA: %v, path length %d, want %d", c.IsCA, c.MaxPathLen, pathLen)
	case c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || len(c.ExtKeyUsage) != 0:
		t.Errorf("usages are %v, %v", c.KeyUsage, c.ExtKeyUsage)
	case len(c.URIs) != 1 || c.URIs[0].String() != "spiffe://"+trustDomain:
		t.Errorf("names are %v", c.URIs)
	case len(c.SubjectKeyId) != 20 || c.SerialNumber.BitLen() < 128 || c.Subject.CommonName == "":
		t.Errorf("key id %x, serial %v, subject %v", c.SubjectKeyId, c.SerialNumber, c.Subject)
	}
}
