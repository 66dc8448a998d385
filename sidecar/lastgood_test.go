package sidecar_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/sidecar"
)

func TestLastGood(t *testing.T) {
	t.Parallel()
	type step = func(l *sidecar.LastGood, dir string) error
	begin := func(revision string) step {
		return func(l *sidecar.LastGood, _ string) error { return l.Begin(revision) }
	}
	acknowledge := func(l *sidecar.LastGood, _ string) error { return l.Acknowledge() }
	promote := func(l *sidecar.LastGood, _ string) error { return l.Promote() }
	retreat := func(l *sidecar.LastGood, _ string) error { return l.Retreat() }
	retreatFar := func(l *sidecar.LastGood, _ string) error { return l.RetreatFar() }
	update := func(l *sidecar.LastGood, _ string) error { return l.Update("updated") }
	edit := func(file string, edit func([]byte) []byte) step {
		return func(_ *sidecar.LastGood, dir string) error {
			path := filepath.Join(dir, "lastgood."+file)
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, edit(bytes.Clone(b)), 0o600)
		}
	}
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	cut := func(b []byte) []byte { return b[:len(b)/2] }
	empty := func([]byte) []byte { return nil }
	other := func(b []byte) []byte { return append(bytes.Repeat([]byte{7}, 32), b[32:]...) }
	// keep keeps the acknowledged file of that moment, which putBack puts back.
	var old []byte
	keep := func(_ *sidecar.LastGood, dir string) (err error) {
		old, err = os.ReadFile(filepath.Join(dir, "lastgood.acknowledged"))
		return err
	}
	putBack := func(_ *sidecar.LastGood, dir string) error {
		return os.WriteFile(filepath.Join(dir, "lastgood.acknowledged"), old, 0o600)
	}
	for _, test := range []struct {
		name  string
		steps []step
		want  string
		loud  bool
	}{
		{"nothing", nil, "", false},
		{"first revision, not acknowledged", []step{begin("1")}, "1", false},
		{"acknowledged", []step{begin("1"), acknowledge}, "1", false},
		{"promoted", []step{begin("1"), acknowledge, promote}, "1", false},
		{"a newer one not acknowledged", []step{begin("1"), acknowledge, promote, begin("2")}, "1", false},
		{"a newer one not acknowledged in probation", []step{begin("1"), acknowledge, begin("2")}, "1", false},
		{"a newer one acknowledged", []step{begin("1"), acknowledge, promote, begin("2"), acknowledge}, "2", false},
		{"never promoted unacknowledged", []step{begin("1"), acknowledge, promote, begin("2"), promote}, "1", false},
		{"updated", []step{begin("1"), acknowledge, promote, update}, "updated", false},
		{"refused", []step{begin("1"), acknowledge, promote, begin("2"), retreatFar, update}, "updated", false},
		{"Envoy died of it", []step{begin("1"), acknowledge, promote, begin("2"), acknowledge, retreatFar}, "1", false},
		{"refused in probation", []step{begin("1"), acknowledge, begin("2"), retreat, update}, "updated", false},
		{"nothing before it", []step{begin("1"), retreat}, "", false},
		{
			"acknowledged is damaged",
			[]step{begin("1"), acknowledge, promote, begin("2"), acknowledge, edit("acknowledged", flip)},
			"1", true,
		},
		{
			"acknowledged is torn",
			[]step{begin("1"), acknowledge, promote, begin("2"), acknowledge, edit("acknowledged", cut)},
			"1", true,
		},
		{
			"acknowledged is empty",
			[]step{begin("1"), acknowledge, promote, begin("2"), acknowledge, edit("acknowledged", empty)},
			"1", true,
		},
		{
			"acknowledged is older than promoted",
			[]step{begin("1"), acknowledge, keep, begin("2"), acknowledge, promote, putBack},
			"2", true,
		},
		{"all are damaged", []step{begin("1"), acknowledge, promote, edit("promoted", flip)}, "", true},
		{"another key", []step{begin("1"), acknowledge, promote, edit("key", other)}, "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			var log strings.Builder
			logger := slog.New(slog.NewTextHandler(&log, nil))
			l, err := sidecar.OpenLastGood(dir, logger)
			check(t, err)
			for _, step := range test.steps {
				check(t, step(l, dir))
			}
			l, err = sidecar.OpenLastGood(dir, logger)
			check(t, err)
			if diff := cmp.Diff(test.want, l.Load()); diff != "" {
				t.Errorf("loaded revision (-want +got):\n%s", diff)
			}
			if loud := strings.Contains(log.String(), "refused"); loud != test.loud {
				t.Errorf("loud is %v: %s", loud, log.String())
			}
		})
	}
}

func TestLastGoodKeyMustBePrivate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	logger := slog.New(slog.DiscardHandler)
	if _, err := sidecar.OpenLastGood(dir, logger); err != nil {
		t.Fatal(err)
	}
	check(t, os.Chmod(filepath.Join(dir, "lastgood.key"), 0o644))
	if _, err := sidecar.OpenLastGood(dir, logger); err == nil {
		t.Error("a key that everybody reads is accepted")
	}
}

func TestLastGoodCounterGrowsAcrossRestarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var last uint64
	for range 3 {
		l, err := sidecar.OpenLastGood(dir, slog.New(slog.DiscardHandler))
		check(t, err)
		l.Load()
		check(t, l.Begin("1"))
		check(t, l.Acknowledge())
		if l.Counter() <= last {
			t.Errorf("counter went from %d to %d", last, l.Counter())
		}
		last = l.Counter()
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lastGoodFile reports whether an agent has a generation of last good state.
func lastGoodFile(a *agent, generation string) error {
	_, err := os.Stat(filepath.Join(a.config.StateDir, "lastgood."+generation))
	return err
}
