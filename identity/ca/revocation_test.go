package ca_test

import (
	"crypto"
	"crypto/x509"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
)

func serials(certs []ca.Certificate) []string {
	var all []string
	for _, c := range certs {
		all = append(all, c.Serial)
	}
	return all
}

// Whoever copied a key may have renewed from a certificate long before the one
// that an operator sees.
func TestRevokeSerialRevokesItsLineage(t *testing.T) {
	t.Parallel()
	authority := open(t, config(t))
	_, first := sign(t, authority, request(t, orders))
	_, second := sign(t, authority, renewal(t, first))
	_, third := sign(t, authority, renewal(t, second))
	_, fork := sign(t, authority, renewal(t, first))
	_, other := sign(t, authority, request(t, orders))
	lineage := []ca.Certificate{first, second, third, fork}

	for range 2 { // again says the same
		revoked, err := authority.RevokeSerial(second.Serial, "laptop lost")
		must(t, err)
		if got, want := serials(revoked), serials(lineage); !slices.Equal(got, want) {
			t.Errorf("revoked are %v, want %v", got, want)
		}
	}
	if got, want := serials(authority.Live()), []string{other.Serial}; !slices.Equal(got, want) {
		t.Errorf("live are %v, want %v", got, want)
	}
	for _, c := range lineage {
		assertRevoked(t, authority, c.Serial)
		if _, _, err := authority.Sign(renewal(t, c)); !errors.Is(err, ca.ErrRevoked) {
			t.Errorf("renewal of a revoked certificate: %v", err)
		}
	}
	if got := listed(t, authority.Trust().GetAuthorities()[0]); len(got) != len(lineage) {
		t.Errorf("revocation list has %v", got)
	}
	for _, serial := range []string{"", "42", strings.ToUpper(first.Serial), first.Serial[:39]} {
		if _, err := authority.RevokeSerial(serial, ""); !errors.Is(err, ca.ErrUnknown) {
			t.Errorf("RevokeSerial(%q): %v", serial, err)
		}
	}
	if _, err := authority.RevokeSerial(first.Serial, strings.Repeat("x", 257)); err == nil {
		t.Error("an endless reason is kept")
	}
}

func TestRevokeIdentity(t *testing.T) {
	t.Parallel()
	authority := open(t, config(t))
	chain, first := sign(t, authority, request(t, orders))
	_, second := sign(t, authority, request(t, orders))
	_, gateway := sign(t, authority, request(t, public))
	_, alike := sign(t, authority, request(t, identity.ID{Role: identity.RoleGateway, Name: "orders"}))
	revoked, err := authority.RevokeIdentity(orders, "")
	must(t, err)
	if got, want := serials(revoked), []string{first.Serial, second.Serial}; !slices.Equal(got, want) {
		t.Errorf("revoked are %v, want %v", got, want)
	}
	trust, err := identity.ParseTrust(authority.Trust())
	must(t, err)
	if _, err := trust.Verify(chain, time.Now()); !errors.Is(err, identity.ErrRevoked) {
		t.Errorf("Verify: %v", err)
	}
	_, again := sign(t, authority, request(t, orders)) // attested anew
	if got, want := serials(authority.Live()), []string{gateway.Serial, alike.Serial, again.Serial}; !slices.Equal(got, want) {
		t.Errorf("live are %v, want %v", got, want)
	}
	if _, err := authority.RevokeIdentity(identity.ID{Role: identity.RoleService, Name: "order"}, ""); !errors.Is(err, ca.ErrUnknown) {
		t.Errorf("RevokeIdentity of nobody: %v", err)
	}
}

// However a renewal and a revocation meet, no child of a revoked certificate
// is left that is not revoked.
func TestRenewalMeetsRevocation(t *testing.T) {
	t.Parallel()
	authority := open(t, config(t))
	for range 20 {
		_, parent := sign(t, authority, request(t, orders))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				_, _, err := authority.Sign(renewal(t, parent))
				if err != nil && !errors.Is(err, ca.ErrRevoked) {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			if _, err := authority.RevokeSerial(parent.Serial, ""); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if live := authority.Live(); len(live) != 0 {
			t.Fatalf("%v escaped the revocation of %s", live, parent.Serial)
		}
	}
}

// A host whose clock is behind takes a revocation list as soon as it takes the
// authority.
func TestRevocationListIsOldEnough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		authority := open(t, config(t))
		time.Sleep(24 * time.Hour)
		_, cert := sign(t, authority, request(t, orders))
		_, err := authority.RevokeSerial(cert.Serial, "")
		must(t, err)
		list := parseCRL(t, authority.Trust().GetAuthorities()[0])
		if begin := authority.Authorities()[0].NotBefore; !list.ThisUpdate.Equal(begin) || len(list.RevokedCertificateEntries) != 1 {
			t.Errorf("list of %v with %d entries, authority of %v", list.ThisUpdate, len(list.RevokedCertificateEntries), begin)
		}
	})
}

// A full disk does not keep a thief in: what is revoked is, and the caller hears
// that it is not on disk. It gets there as soon as it can; and if there is a
// restart before, nobody takes what follows for what was known already.
func TestRevocationWithoutADisk(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	disk := &ca.BrittleDisk{Left: 1 << 30}
	authority := open(t, ca.OnDisk(cfg, disk))
	_, stolen := sign(t, authority, request(t, orders))
	_, other := sign(t, authority, request(t, public))
	before := authority.Trust().GetSequence()
	changed := authority.Changed()
	disk.Left = 0
	for range 2 {
		revoked, err := authority.RevokeSerial(stolen.Serial, "stolen")
		if !errors.Is(err, ca.ErrUnsaved) || len(revoked) != 1 {
			t.Fatalf("RevokeSerial = %v, %v", revoked, err)
		}
	}
	<-changed
	assertRevoked(t, authority, stolen.Serial)
	if err := authority.Expire(); err == nil {
		t.Error("nobody hears that it is still not on disk")
	}
	unsaved := authority.Trust().GetSequence()
	if unsaved == before {
		t.Error("trust has the sequence of the one before")
	}
	must(t, authority.Close())

	authority = open(t, cfg) // it has forgotten
	_, err := authority.RevokeSerial(other.Serial, "")
	must(t, err)
	if now := authority.Trust().GetSequence(); now <= unsaved {
		t.Errorf("sequence is %d, which agents that had %d would not take", now, unsaved)
	}
	must(t, authority.Close())

	disk = &ca.BrittleDisk{Left: 1 << 30}
	authority = open(t, ca.OnDisk(cfg, disk))
	disk.Left = 0
	if _, err := authority.RevokeSerial(stolen.Serial, ""); !errors.Is(err, ca.ErrUnsaved) {
		t.Fatal(err)
	}
	disk.Left = 1 << 30
	was := authority.Trust()
	must(t, authority.Expire())
	if authority.Trust() != was {
		t.Error("writing it down makes another trust")
	}
	must(t, authority.Close())
	authority = open(t, cfg)
	assertRevoked(t, authority, stolen.Serial)
	if authority.Trust().GetSequence() != was.GetSequence() {
		t.Errorf("sequence is %d, was %d", authority.Trust().GetSequence(), was.GetSequence())
	}
}

// hookedSigner runs something in the middle of a signature, once.
type hookedSigner struct {
	crypto.Signer
	hook *atomic.Pointer[func()]
}

func (s hookedSigner) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if hook := s.hook.Swap(nil); hook != nil {
		(*hook)()
	}
	return s.Signer.Sign(r, digest, opts)
}

// What is revoked while its successor is being signed has none.
func TestRevocationInTheMiddleOfARenewal(t *testing.T) {
	t.Parallel()
	p := newPKI(t, nil)
	cfg := config(t)
	cfg.Supplied = p.supply(t, nil, p.issuing, p.root)
	var hook atomic.Pointer[func()]
	cfg.Supplied.Signer = func(*x509.Certificate) (crypto.Signer, error) { return hookedSigner{p.issueKey, &hook}, nil }
	authority := open(t, cfg)
	_, parent := sign(t, authority, request(t, orders))
	revoke := func() {
		if _, err := authority.RevokeSerial(parent.Serial, ""); err != nil {
			t.Error(err)
		}
	}
	hook.Store(&revoke)
	if _, cert, err := authority.Sign(renewal(t, parent)); !errors.Is(err, ca.ErrRevoked) {
		t.Errorf("Sign = %v, %v", cert, err)
	}
	if live := authority.Live(); len(live) != 0 {
		t.Errorf("live are %v", live)
	}
}

// Revocations leave an hour after their certificates, from Trust, list and
// ledger.
func TestRevocationsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t)
		authority := open(t, cfg)
		_, cert := sign(t, authority, request(t, orders)) // lives an hour
		_, err := authority.RevokeSerial(cert.Serial, "")
		must(t, err)
		was := authority.Trust()
		time.Sleep(time.Hour + time.Second)
		must(t, authority.Expire())
		if _, ok := authority.Find(cert.Serial); ok || authority.Trust() != was {
			t.Error("the certificate has not ended, or its revocation has")
		}
		if _, err := authority.RevokeSerial(cert.Serial, ""); !errors.Is(err, ca.ErrUnknown) {
			t.Errorf("revocation of what has ended: %v", err)
		}
		time.Sleep(time.Hour)
		must(t, authority.Expire())
		now := authority.Trust()
		if len(now.GetRevoked()) != 0 || len(listed(t, now.GetAuthorities()[0])) != 0 || now.GetSequence() != was.GetSequence()+1 {
			t.Errorf("trust is %v", now)
		}
	})
}
