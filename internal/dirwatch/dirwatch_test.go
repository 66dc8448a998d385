package dirwatch_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/internal/dirwatch"
)

func TestWatch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	sub := filepath.Join(dir, "sub")
	loads := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- dirwatch.Watch(ctx, slog.New(slog.DiscardHandler),
			func() []string { return []string{dir, sub, filepath.Join(dir, "absent")} },
			func() { loads <- struct{}{} })
	}()
	next := func(what string) {
		t.Helper()
		select {
		case <-loads:
		case <-time.After(30 * time.Second):
			t.Fatalf("not told of %s", what)
		}
	}
	write := func(path string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	next("the start")
	write(filepath.Join(dir, "a"))
	next("a file")
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	next("a directory")
	write(filepath.Join(sub, "b"))
	next("a file in it")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Who writes without an end does not keep it from being read.
func TestWatchDuringWrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	loads := make(chan struct{}, 100)
	go func() {
		_ = dirwatch.Watch(t.Context(), slog.New(slog.DiscardHandler), func() []string { return []string{dir} }, func() { loads <- struct{}{} })
	}()
	<-loads
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-loads:
			return
		case <-deadline:
			t.Fatal("nothing is read while somebody writes")
		case <-tick.C:
			_ = os.WriteFile(filepath.Join(dir, "a"), []byte("x"), 0o600)
		}
	}
}
