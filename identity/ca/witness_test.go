package ca_test

import (
	"crypto/x509"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// witness remembers what a CA reported, which no crash may undo.
type witness struct {
	issued  []string
	revoked []string
	// asked are authorities whose end somebody asked for.
	asked []string
	trust *chancerypb.Trust
}

// assertKept checks a CA that was opened after a crash.
func (w *witness) assertKept(t *testing.T, authority *ca.CA) {
	t.Helper()
	now := authority.Trust()
	if _, err := identity.ParseTrust(now); err != nil {
		t.Errorf("trust: %v", err)
	}
	for _, serial := range w.issued {
		if _, ok := authority.Find(serial); !ok {
			t.Errorf("certificate %s is forgotten", serial)
		}
	}
	for _, serial := range w.revoked {
		assertRevoked(t, authority, serial)
	}
	for _, a := range w.trust.GetAuthorities() {
		kept := slices.ContainsFunc(now.GetAuthorities(), func(b *chancerypb.Authority) bool { return b.GetId() == a.GetId() })
		if !kept && !slices.Contains(w.asked, a.GetId()) {
			t.Errorf("authority %s is lost", a.GetId())
		}
	}
	switch was := w.trust.GetSequence(); {
	case now.GetSequence() < was:
		t.Errorf("sequence is %d, was %d", now.GetSequence(), was)
	case now.GetSequence() == was && !proto.Equal(now, w.trust):
		t.Errorf("sequence %d has two meanings: %v, %v", was, now, w.trust)
	}
	if _, cert := sign(t, authority, request(t, public)); slices.Contains(w.issued, cert.Serial) {
		t.Errorf("serial %s is used twice", cert.Serial)
	}
}

// assertRevoked checks ledger, fingerprints and revocation list.
func assertRevoked(t *testing.T, authority *ca.CA, serial string) {
	t.Helper()
	c, ok := authority.Find(serial)
	if !ok || c.Revoked.IsZero() {
		t.Errorf("revocation of %s is forgotten", serial)
		return
	}
	trust := authority.Trust()
	if !slices.ContainsFunc(trust.GetRevoked(), func(r *chancerypb.RevokedCertificate) bool {
		return string(r.GetFingerprint()) == string(c.Fingerprint[:])
	}) {
		t.Errorf("fingerprint of %s is not in trust", serial)
	}
	for _, a := range trust.GetAuthorities() {
		if a.GetId() == c.Authority && !slices.Contains(listed(t, a), serial) {
			t.Errorf("serial %s is not in the revocation list of its authority", serial)
		}
	}
}

// listed returns the serials of a revocation list.
func listed(t *testing.T, a *chancerypb.Authority) []string {
	t.Helper()
	var serials []string
	for _, e := range parseCRL(t, a).RevokedCertificateEntries {
		serials = append(serials, e.SerialNumber.Text(16))
	}
	return serials
}

func parseCRL(t *testing.T, a *chancerypb.Authority) *x509.RevocationList {
	t.Helper()
	list, err := x509.ParseRevocationList(a.GetCrl())
	if err != nil {
		t.Fatal(err)
	}
	return list
}
