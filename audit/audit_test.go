package audit_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-mesh/chancery/audit"
)

func open(t *testing.T, path string, log *slog.Logger) *audit.Log {
	t.Helper()
	l, err := audit.Open(path, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// lines returns the events in a file.
func lines(t *testing.T, path string) (events []audit.Event) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		var e audit.Event
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			t.Fatalf("%q: %v", in.Text(), err)
		}
		events = append(events, e)
	}
	return events
}

func TestRecordAppendsOneLine(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	var out strings.Builder
	first := open(t, path, slog.New(slog.NewTextHandler(&out, nil)))
	first.Record(audit.Event{
		Event: "join", Subject: "service/orders\n{\"event\":\"forged\"}", Outcome: audit.Refused, Reason: "expired",
		Details: map[string]string{"token": "7f"},
	})
	second := open(t, path, nil)
	second.Record(audit.Event{Event: "join", Subject: strings.Repeat("a", 5000), Outcome: audit.Done})
	got := lines(t, path)
	if len(got) != 2 || got[0].Reason != "expired" || got[0].Details["token"] != "7f" || got[0].Time.IsZero() {
		t.Fatalf("events are %+v", got)
	}
	if len(got[1].Subject) > 600 {
		t.Errorf("a subject of %d bytes", len(got[1].Subject))
	}
	if text := out.String(); !strings.Contains(text, "level=WARN") || strings.Count(text, "\n") != 1 {
		t.Errorf("log is %q", text)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// Strangers cannot fill the disk: what they are refused is counted. What is done
// has a line each, and so has a refusal of another kind.
func TestRefusalsAreCounted(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	synctest.Test(t, func(t *testing.T) {
		l := open(t, path, nil)
		refused := func(host, reason string, port int) {
			l.Record(audit.Event{Event: "join", By: fmt.Sprintf("%s:%d", host, port), Outcome: audit.Refused, Reason: reason})
		}
		for n := range 1000 {
			refused("10.0.0.7", "it is unknown", n)
		}
		refused("10.0.0.7", "it was used with another key", 1)
		for range 3 {
			l.Record(audit.Event{Event: "join", By: "10.0.0.7:1", Outcome: audit.Done})
		}
		if n := len(lines(t, path)); n != 1+1+3 {
			t.Errorf("%d lines", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		got := lines(t, path)
		if last := got[len(got)-1]; len(got) != 6 || last.By != "10.0.0.7" || last.Reason != "it is unknown" || last.Details["more"] != "999" {
			t.Errorf("the last of %d lines is %+v", len(got), last)
		}
		for n := range 1000 { // another each
			refused(fmt.Sprintf("10.0.%d.%d", n/250, n%250), "it is unknown", 1)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		got = lines(t, path)[6:]
		if len(got) != 30+1+1 || got[31].Details["more"] != "969" {
			t.Errorf("%d lines, the last is %+v", len(got), got[len(got)-1])
		}
	})
}

func TestRecordKeepsLinesWhole(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	one, other := open(t, path, nil), open(t, path, nil)
	var wg sync.WaitGroup
	for _, l := range []*audit.Log{one, other, one, other} {
		wg.Go(func() {
			for range 100 {
				l.Record(audit.Event{Event: "e", Subject: "s", Outcome: audit.Done, Reason: strings.Repeat("r", 400)})
			}
		})
	}
	wg.Wait()
	if n := len(lines(t, path)); n != 400 {
		t.Errorf("%d lines, want 400", n)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	readable, link := filepath.Join(dir, "readable"), filepath.Join(dir, "link")
	err := errors.Join(os.WriteFile(readable, nil, 0o600), os.Chmod(readable, 0o640), os.Symlink(filepath.Join(dir, "new"), link))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{readable, link, dir, filepath.Join(dir, "none", "audit.log")} {
		if l, err := audit.Open(path, nil); err == nil {
			t.Errorf("opened %s: %v", path, l.Close())
		}
	}
}

func TestALogThatCannotBeWrittenIsLoud(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	l := open(t, filepath.Join(t.TempDir(), "audit.log"), slog.New(slog.NewTextHandler(&out, nil)))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l.Record(audit.Event{Event: "join", Outcome: audit.Done})
	if !strings.Contains(out.String(), "level=ERROR") {
		t.Errorf("log is %q", out.String())
	}
}

func TestNilLogDrops(t *testing.T) {
	t.Parallel()
	var l *audit.Log
	l.Record(audit.Event{Event: "join"})
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
