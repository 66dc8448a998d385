package ca_test

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

func changed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestTrustChangesOnlyWithItsContent(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	authority := open(t, cfg)
	trust, signal := authority.Trust(), authority.Changed()
	_, cert := sign(t, authority, request(t, orders))
	must(t, authority.Expire())
	if authority.Trust() != trust || changed(signal) {
		t.Error("a new certificate changed trust")
	}
	next, err := authority.Prepare(false)
	must(t, err)
	prepared := authority.Trust()
	if !changed(signal) || prepared.GetSequence() != trust.GetSequence()+1 || next.Sequence != prepared.GetSequence() {
		t.Errorf("prepared at %d, trust went from %d to %d, signalled: %v", next.Sequence, trust.GetSequence(), prepared.GetSequence(), changed(signal))
	}
	if !bytes.Equal(crlOf(trust, 0), crlOf(prepared, 0)) {
		t.Error("a revocation list that says the same is signed again")
	}
	signal = authority.Changed()
	must(t, authority.Activate(next.ID))
	if authority.Trust() != prepared || changed(signal) || authority.Authorities()[1].Sequence != prepared.GetSequence() {
		t.Error("trust does not say who is active, so it should not change, and show it from when it was prepared")
	}
	_, err = authority.RevokeSerial(cert.Serial, "")
	must(t, err)
	revoked := authority.Trust()
	if !changed(signal) || revoked.GetSequence() != prepared.GetSequence()+1 {
		t.Error("a revocation did not change trust")
	}
	if bytes.Equal(crlOf(prepared, 0), crlOf(revoked, 0)) || !bytes.Equal(crlOf(prepared, 1), crlOf(revoked, 1)) {
		t.Error("not exactly the list of the certificate's authority is signed again")
	}
	authority = reopen(t, authority, cfg)
	if !proto.Equal(authority.Trust(), revoked) {
		t.Errorf("trust after a restart is %v, was %v", authority.Trust(), revoked)
	}
}

func crlOf(trust *chancerypb.Trust, n int) []byte { return trust.GetAuthorities()[n].GetCrl() }

// Revocation lists never end, grow in number, and are there when empty.
func TestRevocationLists(t *testing.T) {
	t.Parallel()
	authority := open(t, config(t))
	_, cert := sign(t, authority, request(t, orders))
	empty := parseCRL(t, authority.Trust().GetAuthorities()[0])
	_, err := authority.RevokeSerial(cert.Serial, "")
	must(t, err)
	full := parseCRL(t, authority.Trust().GetAuthorities()[0])
	if full.Number.Cmp(empty.Number) <= 0 || len(empty.RevokedCertificateEntries) != 0 || len(full.RevokedCertificateEntries) != 1 {
		t.Errorf("lists %v and %v have %d and %d entries", empty.Number, full.Number, len(empty.RevokedCertificateEntries), len(full.RevokedCertificateEntries))
	}
	for _, list := range []time.Time{empty.NextUpdate, full.NextUpdate} {
		if list != time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) {
			t.Errorf("list ends at %v", list)
		}
	}
	if full.ThisUpdate.After(time.Now().Add(-59 * time.Second)) {
		t.Errorf("list begins at %v, too late for clocks that are behind", full.ThisUpdate)
	}
}
