package rego_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-mesh/chancery/extauthz/policy/rego"
	"github.com/chancery-mesh/chancery/internal/lockedbuffer"
	"github.com/chancery-mesh/chancery/mesh"
)

// gauge returns the value of a gauge without labels.
func gauge(t *testing.T, g prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestWatch(t *testing.T) {
	t.Parallel()
	dir := write(t, t.TempDir(), map[string]string{"shop.rego": "package shop\nallow := 1"})
	uses := make(chan *rego.Query, 10)
	var log lockedbuffer.Buffer
	registry := prometheus.NewPedanticRegistry()
	loader, err := rego.NewLoader(rego.LoaderConfig{
		Query: query, Use: func(q *rego.Query) { uses <- q }, Logger: slog.New(slog.NewTextHandler(&log, nil)), Registerer: registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- loader.Watch(ctx, dir, ast.RegoUndefined) }()
	expect := func(want string) {
		t.Helper()
		select {
		case q := <-uses:
			if got, err := q.Eval(t.Context(), nil, now); got != number(want) {
				t.Errorf("= %v, %v, want %s", got, err, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no policy that says %s\n%s", want, log.String())
		}
	}
	eventually := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("never %s\n%s", what, log.String())
			}
		}
	}
	refused := func() bool { return gauge(t, registry, "chancery_policy_refused") == 1 }
	expect("1")
	write(t, dir, map[string]string{"shop.rego": "package shop\nallow := 2"})
	expect("2")
	write(t, dir, map[string]string{"more/rules.rego": "package shop\nallow := x"})
	eventually("refused", refused)
	if text := log.String(); !strings.Contains(text, "rules.rego:2:1") || strings.Count(text, "policy refused") != 1 {
		t.Errorf("log:\n%s", text)
	}
	if err := os.Rename(filepath.Join(dir, "more/rules.rego"), filepath.Join(dir, "more/rules.bak")); err != nil {
		t.Fatal(err)
	}
	expect("2")
	eventually("confirmed", func() bool { return !refused() })
	if err := os.Rename(dir, dir+".gone"); err != nil {
		t.Fatal(err)
	}
	eventually("refused", refused)
	if err := os.Rename(dir+".gone", dir); err != nil {
		t.Fatal(err)
	}
	expect("2")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	select {
	case <-uses:
		t.Error("used once more")
	default:
	}
}

// What is wrong from the beginning ends Watch.
func TestWatchNothingGood(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"a fault": {"shop.rego": "package shop\nallow := x"}, "no rule": {"shop.rego": "package shop\ndeny := true"}, "nothing": {}, "bad data": {"a.json": "["},
	} {
		loader, err := rego.NewLoader(rego.LoaderConfig{
			Query: query, Use: func(*rego.Query) { t.Errorf("%s: used", name) }, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		err = loader.Watch(t.Context(), write(t, t.TempDir(), files), ast.RegoUndefined)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, ok := errors.AsType[mesh.Faults](err); name == "a fault" && !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLoaderConfig(t *testing.T) {
	t.Parallel()
	logger := slog.New(slog.DiscardHandler)
	use := func(*rego.Query) {}
	for _, c := range []rego.LoaderConfig{{Use: use, Logger: logger}, {Query: query, Logger: logger}, {Query: query, Use: use}} {
		if _, err := rego.NewLoader(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}
