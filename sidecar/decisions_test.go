package sidecar_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/decisions"
)

// What an agent decides can be asked for at its socket, and is in its log, also
// when it ends right after.
func TestDecisionsAreTold(t *testing.T) {
	cp := newControlPlane(t, public)
	a := newAgent(t, cp)
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	sink, err := audit.NewFile(audit.FileConfig{Path: path, Logger: slog.New(slog.DiscardHandler)})
	check(t, err)
	a.config.DecisionLog = sink
	cp.set("rev-1", view(t, "orders")...)
	cp.start()
	a.start()
	e := newFakeEnvoy(t, a.socket())
	e.connect()
	eventually(t, "the policy is there", func() error { return is(e.knows("orders"), known) })

	dir := a.config.StateDir
	all, err := decisions.Last(t.Context(), dir, 100, false)
	check(t, err)
	if len(all) == 0 || all[0].Reason != "credential_missing" || all[0].Policy != "gateway/public" || len(all[0].Trace) < 2 {
		t.Fatalf("decisions are %+v", all)
	}
	denied, err := decisions.Last(t.Context(), dir, 1, true)
	check(t, err)
	if len(denied) != 1 || denied[0].ID != all[0].ID {
		t.Errorf("the last denial is %+v", denied)
	}
	one, err := decisions.Find(t.Context(), dir, all[0].ID)
	if err != nil || one.ID != all[0].ID || one.Status != 401 {
		t.Errorf("the decision is %+v, %v", one, err)
	}
	if _, err := decisions.Find(t.Context(), dir, "no/such"); !errors.Is(err, decisions.ErrNotFound) {
		t.Errorf("another one: %v", err)
	}

	supposed, err := decisions.Suppose(t.Context(), dir, &extauthz.Hypothesis{Method: "GET", Target: "/orders", Headers: []extauthz.HypotheticalHeader{
		{Name: "authorization", Value: "Bearer a.b.c"}, {Name: "authorization", Value: "Bearer d.e.f"},
	}})
	if err != nil || !supposed.Hypothetical || supposed.Reason != "credential_ambiguous" || supposed.Route != "orders" {
		t.Errorf("supposed %+v, %v", supposed, err)
	}
	if again, err := decisions.Last(t.Context(), dir, 100, false); err != nil || len(again) != len(all) {
		t.Errorf("%d decisions, then %d, %v", len(all), len(again), err)
	}

	a.stop()
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	logged := map[string]string{}
	for in := bufio.NewScanner(f); in.Scan(); {
		var d audit.Decision
		check(t, json.Unmarshal(in.Bytes(), &d))
		logged[d.ID] = d.Agent + " " + d.Instance + " " + d.Reason
	}
	if got := logged[one.ID]; got != "gateway/public edge-1 credential_missing" {
		t.Errorf("logged as %q", got)
	}
	if info, err := os.Stat(filepath.Join(dir, "decisions.key")); err != nil || info.Mode() != 0o600 || info.Size() != 32 {
		t.Errorf("the key: %v, %v", info, err)
	}
}
