package sidecar_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/extauthz/revocation"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/sidecar"
)

// revoked is a resource of revocations of subjects' credentials.
func revoked(t *testing.T, name string, sequence uint64, subjects ...string) *xds.Resource {
	t.Helper()
	m := &chancerypb.Revocations{Sequence: sequence}
	for _, s := range subjects {
		m.Entries = append(m.Entries, &chancerypb.Revocation{
			Id: name + s, Whose: &chancerypb.Revocation_Subject{Subject: s},
			Before: timestamppb.Now(), Expires: timestamppb.New(time.Now().Add(time.Hour)),
		})
	}
	return encode(t, name, m)
}

// unheardOf is one with an entry of a kind that is yet to come.
func unheardOf(t *testing.T, name string, sequence uint64) *xds.Resource {
	t.Helper()
	return encode(t, name, &chancerypb.Revocations{Sequence: sequence, Entries: []*chancerypb.Revocation{{Id: name}}})
}

func refuses(ix *revocation.Index, subject string) bool {
	_, found := ix.Find(revocation.Credential{User: subject}, time.Now())
	return found
}

func TestRevocationsNeverGoBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rs := sidecar.LoadRevocations(dir, false)
	if rs.Index() != nil {
		t.Error("it is known what is revoked before anybody said so")
	}
	check(t, rs.Take())
	if rs.Index() == nil || rs.Index().Len() != 0 {
		t.Error("it is not known that nothing is revoked")
	}
	check(t, rs.Take(revoked(t, "0a", 7, "alice"), revoked(t, "0b", 8, "bob")))
	for name, r := range map[string]*xds.Resource{
		"older":                           revoked(t, "0b", 5),
		"of the same sequence, but other": revoked(t, "0b", 8),
	} {
		if err := rs.Take(r, revoked(t, "0c", 9, "carol")); err == nil {
			t.Errorf("%s: no error", name)
		}
		if !refuses(rs.Index(), "bob") || !refuses(rs.Index(), "carol") {
			t.Errorf("%s: bob is refused %v, and so is carol, who came along, %v", name, refuses(rs.Index(), "bob"), refuses(rs.Index(), "carol"))
		}
	}
	check(t, rs.Take(revoked(t, "0b", 10, "dave")))
	again := sidecar.LoadRevocations(dir, true)
	for _, rs := range []sidecar.Revocations{rs, again} {
		if ix := rs.Index(); rs.Sequence() != 10 || ix.Len() != 3 || refuses(ix, "bob") || !refuses(ix, "dave") || !refuses(ix, "alice") {
			t.Errorf("sequence %d with %d entries", rs.Sequence(), ix.Len())
		}
	}
	if err := again.Take(revoked(t, "0a", 6)); err == nil {
		t.Error("an older one is taken after a restart")
	}
	assertPrivate(t, filepath.Join(dir, "revocations.pb"))
}

// What is not understood counts as not taken, and nothing that comes later says
// otherwise.
func TestRevocationsThatAreNotUnderstood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rs := sidecar.LoadRevocations(dir, false)
	if err := rs.Take(revoked(t, "0a", 7, "alice"), unheardOf(t, "0b", 8)); err == nil {
		t.Error("it was taken")
	}
	check(t, rs.Take(revoked(t, "0c", 9, "carol")))
	if !refuses(rs.Index(), "alice") || !refuses(rs.Index(), "carol") || rs.Sequence() != 7 {
		t.Errorf("sequence is %d, want 7", rs.Sequence())
	}
	check(t, rs.Take(revoked(t, "0b", 10, "bob")))
	if !refuses(rs.Index(), "bob") || rs.Sequence() != 10 {
		t.Errorf("sequence is %d, want 10", rs.Sequence())
	}
	garbage := revoked(t, "0d", 11, "dave").Delta()
	garbage.Resource.Value = []byte{0xff}
	if err := rs.Take(xds.FromDelta(garbage)); err == nil {
		t.Error("garbage was taken")
	}
	check(t, rs.Take(revoked(t, "0a", 12, "erin")))
	if !refuses(rs.Index(), "erin") || rs.Sequence() != 10 {
		t.Errorf("beside garbage, sequence is %d, want 10", rs.Sequence())
	}
}

// Without a file it is not known what is revoked, but for an agent of a version
// that knew no revocations. A disk that fails keeps nobody in.
func TestRevocationsOnDisk(t *testing.T) {
	t.Parallel()
	if ix := sidecar.LoadRevocations(t.TempDir(), true).Index(); ix == nil || ix.Len() != 0 {
		t.Error("an earlier version's state is not taken over")
	}
	for name, damage := range map[string]func(path string) error{
		"truncated": func(path string) error { return os.Truncate(path, 20) },
		"open":      func(path string) error { return os.Chmod(path, 0o644) },
		"garbage":   func(path string) error { return os.WriteFile(path, []byte("garbage"), 0o600) },
	} {
		dir := t.TempDir()
		check(t, sidecar.LoadRevocations(dir, false).Take(revoked(t, "0a", 7, "alice")))
		check(t, damage(filepath.Join(dir, "revocations.pb")))
		rs := sidecar.LoadRevocations(dir, true)
		if rs.Index() != nil {
			t.Errorf("%s: %d entries are known", name, rs.Index().Len())
		}
		check(t, rs.Take(revoked(t, "0a", 7, "alice")))
		if !refuses(rs.Index(), "alice") {
			t.Errorf("%s: alice is let in", name)
		}
	}
	rs := sidecar.LoadRevocations(filepath.Join(t.TempDir(), "nowhere"), false)
	check(t, rs.Take(revoked(t, "0a", 7, "alice")))
	if !refuses(rs.Index(), "alice") {
		t.Error("without a disk, alice is let in")
	}
}
