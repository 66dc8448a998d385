package sidecar_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/sidecar"
)

func TestTrustNeverGoesBack(t *testing.T) {
	t.Parallel()
	e := newEnroller(t)
	dir := t.TempDir()
	c := e.start(dir, orders)
	first := e.ca.Trust()
	_, err := e.ca.RevokeSerial(e.issue(public).Serial(), "stolen")
	check(t, err)
	second := e.ca.Trust()
	check(t, c.TakeTrust(second))
	for name, m := range map[string]*chancerypb.Trust{
		"older":                           first,
		"of the same sequence, but other": withTrust(second, func(m *chancerypb.Trust) { m.Revoked = nil }),
		"of another mesh": withTrust(newAuthority(t).ca.Trust(), func(m *chancerypb.Trust) {
			m.Sequence = 100
			m.TrustDomain = "shop.example.evil"
		}),
		"without roots": withTrust(second, func(m *chancerypb.Trust) { m.Sequence++; m.Roots = nil }),
		"without revocation lists": withTrust(second, func(m *chancerypb.Trust) {
			m.Sequence++
			m.Authorities[0].Crl = nil
		}),
	} {
		if err := c.TakeTrust(m); err == nil {
			t.Errorf("trust that is %s was taken", name)
		}
	}
	check(t, c.TakeTrust(proto.CloneOf(second)))
	if c.Trust().Sequence() != second.GetSequence() {
		t.Errorf("sequence is %d, want %d", c.Trust().Sequence(), second.GetSequence())
	}
	// An enrollment that was under way when it changed brings an older one.
	e.spoil = func(r *chancerypb.EnrollResponse) { r.Trust = first }
	check(t, c.Enroll(t.Context()))

	again := sidecar.NewCredentials(dir, orders, e, slog.New(slog.DiscardHandler))
	if again.Trust() == nil || again.Trust().Sequence() != second.GetSequence() {
		t.Error("the newest trust is not there after a restart")
	}
	if err := again.TakeTrust(first); err == nil || !strings.Contains(err.Error(), "older than") {
		t.Errorf("an older trust after a restart: %v", err)
	}
	assertPrivate(t, filepath.Join(dir, "trust.pb"))
}

// A trust file that cannot be used is no trust: nothing is verified by it, and
// nothing without.
func TestDamagedTrustIsNotUsed(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"missing":   os.Remove,
		"empty":     func(path string) error { return os.Truncate(path, 0) },
		"truncated": func(path string) error { return os.Truncate(path, 300) },
		"open":      func(path string) error { return os.Chmod(path, 0o644) },
	} {
		e := newEnroller(t)
		dir := t.TempDir()
		e.start(dir, orders)
		check(t, damage(filepath.Join(dir, "trust.pb")))
		again := sidecar.NewCredentials(dir, orders, e, slog.New(slog.DiscardHandler))
		if again.Trust() != nil || again.SVID() == nil || !again.Due().IsZero() {
			t.Errorf("%s: trust %v, due %v, want none, and to join at once", name, again.Trust(), again.Due())
		}
	}
}

func withTrust(m *chancerypb.Trust, change func(*chancerypb.Trust)) *chancerypb.Trust {
	m = proto.CloneOf(m)
	change(m)
	return m
}
