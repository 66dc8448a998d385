package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/chancery-mesh/chancery/audit"
)

func openFile(t testing.TB, c audit.FileConfig) *audit.File {
	t.Helper()
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	f, err := audit.NewFile(c)
	if err == nil {
		err = f.Append(nil, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// running is a log that runs.
type running struct {
	*audit.DecisionLog
	stop func() error
	reg  *prometheus.Registry
}

// start runs a log until the test ends or stop is called.
func start(t testing.TB, c audit.DecisionLogConfig) *running {
	t.Helper()
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Agent, c.Instance = "service/orders", "orders-1"
	reg := prometheus.NewRegistry()
	c.Registerer = reg
	l, err := audit.NewDecisionLog(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = stop() })
	return &running{DecisionLog: l, stop: stop, reg: reg}
}

// value returns what a metric says.
func (r *running) value(t testing.TB, name string) float64 {
	t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// record writes decisions to a file as an agent would, from its start to its end.
func record(t *testing.T, path string, all ...*audit.Decision) {
	t.Helper()
	l := start(t, audit.DecisionLogConfig{Sink: openFile(t, audit.FileConfig{Path: path})})
	for _, d := range all {
		l.Record(d)
	}
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
}

// slow is a file on a disk that takes its time.
type slow struct {
	*audit.File
	delay   atomic.Int64
	durable atomic.Int64
	lines   atomic.Int64
	busy    atomic.Int64
}

func (s *slow) Append(lines []byte, durably bool) error {
	if len(lines) == 0 {
		return s.File.Append(lines, durably)
	}
	if durably {
		s.durable.Add(1)
	}
	begin := time.Now()
	err := s.File.Append(lines, durably)
	s.busy.Add(int64(time.Since(begin)))
	s.lines.Add(int64(bytes.Count(lines, []byte("\n"))))
	time.Sleep(time.Duration(s.delay.Load()))
	return err
}

func TestRecordDurablyIsThereWhenItReturns(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	l := start(t, audit.DecisionLogConfig{Sink: openFile(t, audit.FileConfig{Path: path}), Wait: time.Minute})
	for n := 1; n <= 3; n++ {
		if err := l.RecordDurably(t.Context(), full()); err != nil {
			t.Fatal(err)
		}
		if got := decisions(t, path); len(got) != n || got[n-1].Decision.Decision != audit.Deny {
			t.Fatalf("after record %d: %+v", n, got)
		}
	}
}

// Who waits at the same time shares one sync.
func TestRecordDurablyCommitsInGroups(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "decisions.jsonl")
		sink := &slow{File: openFile(t, audit.FileConfig{Path: path})}
		sink.delay.Store(int64(5 * time.Millisecond))
		l := start(t, audit.DecisionLogConfig{Sink: sink})
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				if err := l.RecordDurably(t.Context(), full()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n, lines := sink.durable.Load(), len(decisions(t, path)); lines != 500 || n > 3 {
			t.Errorf("%d lines in %d syncs", lines, n)
		}
		_ = l.stop()
	})
}

// A04, T17: a disk that takes five seconds to sync refuses within 50 ms what has
// to be recorded, at once while it is known to be stuck, and takes it when it
// is well again. Nothing that was refused reads as allowed.
func TestSlowSync(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "decisions.jsonl")
		sink := &slow{File: openFile(t, audit.FileConfig{Path: path})}
		l := start(t, audit.DecisionLogConfig{Sink: sink})
		allow := func(id string) error {
			return l.RecordDurably(t.Context(), &audit.Decision{ID: id, Decision: audit.Allow, Status: 200, Reason: "allowed"})
		}
		refused := map[string]bool{}
		refuse := func(id string, wait time.Duration) {
			t.Helper()
			begin := time.Now()
			if err := allow(id); !errors.Is(err, audit.ErrUnavailable) || time.Since(begin) != wait {
				t.Errorf("%s: %v after %v, want %v", id, err, time.Since(begin), wait)
			}
			refused[id] = true
		}
		if err := allow("well"); err != nil {
			t.Fatal(err)
		}
		sink.delay.Store(int64(5 * time.Second))
		refuse("in flight", 50*time.Millisecond)
		refuse("stuck", 0)
		begin := time.Now()
		l.Record(&audit.Decision{ID: "best effort", Decision: audit.Allow})
		if wait := time.Since(begin); wait != 0 {
			t.Errorf("best effort waited %v", wait)
		}
		sink.delay.Store(0)
		time.Sleep(10 * time.Second)
		if err := allow("well again"); err != nil {
			t.Error(err)
		}
		last := map[string]string{}
		for _, line := range decisions(t, path) {
			last[line.ID] = line.Decision.Decision + " " + line.Reason
		}
		for id := range refused {
			if last[id] != "deny audit_unavailable" {
				t.Errorf("%s ends as %q", id, last[id])
			}
		}
		if last["well"] != "allow allowed" || last["well again"] != "allow allowed" || last["best effort"] != "allow " {
			t.Errorf("records are %v", last)
		}
		_ = l.stop()
	})
}

// Who gives up before the record is written is written as refused, once.
func TestRecordDurablyEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "decisions.jsonl")
		sink := &slow{File: openFile(t, audit.FileConfig{Path: path})}
		sink.delay.Store(int64(40 * time.Millisecond))
		l := start(t, audit.DecisionLogConfig{Sink: sink})
		go func() { _ = l.RecordDurably(t.Context(), &audit.Decision{ID: "first", Decision: audit.Allow}) }()
		time.Sleep(10 * time.Millisecond) // the first is being written
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		if err := l.RecordDurably(ctx, &audit.Decision{ID: "second", Decision: audit.Allow}); !errors.Is(err, audit.ErrUnavailable) {
			t.Error(err)
		}
		time.Sleep(time.Second)
		got := decisions(t, path)
		if len(got) != 2 || got[0].Decision.Decision != audit.Allow || got[1].Decision.Decision != audit.Deny || got[1].Status != 503 {
			t.Errorf("lines are %+v", got)
		}
		_ = l.stop()
	})
}

// What finds no room is counted exactly: by the metric, by a line, and by the
// gap in the sequence.
func TestDroppedAreCounted(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]audit.DecisionLogConfig{
		"by records": {MaxRecords: 100}, "by bytes": {MaxBytes: 100 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "decisions.jsonl")
				sink := &slow{File: openFile(t, audit.FileConfig{Path: path})}
				sink.delay.Store(int64(time.Second))
				limit.Sink = sink
				l := start(t, limit)
				const all = 1000
				var wg sync.WaitGroup
				for range 10 {
					wg.Go(func() {
						for range all / 10 {
							l.Record(&audit.Decision{Path: "/" + strings.Repeat("a", 500)})
						}
					})
				}
				wg.Wait()
				time.Sleep(5 * time.Second)
				l.Record(&audit.Decision{ID: "after"})
				if err := l.stop(); err != nil {
					t.Error(err)
				}
				var logged, notes, counted, sequence uint64
				for _, line := range decisions(t, path) {
					counted += line.Count
					if line.Kind == "decision" {
						logged++
					} else {
						notes++
					}
					if line.Sequence <= sequence {
						t.Errorf("sequence %d after %d", line.Sequence, sequence)
					}
					sequence = line.Sequence
				}
				dropped := uint64(l.value(t, "chancery_decisions_dropped_total"))
				if logged+dropped != all+1 || counted != dropped || dropped < 700 || float64(logged) != l.value(t, "chancery_decisions_logged_total") {
					t.Errorf("%d logged, %d dropped, %d told of", logged, dropped, counted)
				}
				if sequence != all+1+notes {
					t.Errorf("the last sequence is %d, with %d notes", sequence, notes)
				}
			})
		})
	}
}

// A09: a clock that jumps does not reorder records.
func TestSequenceSurvivesClockJumps(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	now := time.Date(2026, 11, 3, 12, 0, 0, 0, time.UTC)
	var all []*audit.Decision
	for n, jump := range []time.Duration{0, time.Hour, -time.Hour, 0} {
		all = append(all, &audit.Decision{ID: fmt.Sprint(n + 1), Time: now.Add(jump)})
	}
	record(t, path, all...)
	record(t, path, &audit.Decision{ID: "1"})
	got := decisions(t, path)
	for n, line := range got[:4] {
		if line.ID != fmt.Sprint(line.Sequence) || line.Sequence != uint64(n+1) || line.Run != got[0].Run {
			t.Errorf("line %d is %+v", n, line)
		}
	}
	if got[4].Run == got[0].Run || got[4].Sequence != 1 {
		t.Errorf("another process' line is %+v", got[4])
	}
}

// After the end nothing is recorded, and nothing that must be is allowed.
func TestAfterTheEnd(t *testing.T) {
	t.Parallel()
	l := start(t, audit.DecisionLogConfig{Sink: openFile(t, audit.FileConfig{Path: filepath.Join(t.TempDir(), "d")})})
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	l.Record(full())
	if err := l.RecordDurably(t.Context(), full()); !errors.Is(err, audit.ErrUnavailable) {
		t.Error(err)
	}
	if n := l.value(t, "chancery_decisions_dropped_total"); n != 2 {
		t.Errorf("%v dropped", n)
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	sink, err := audit.NewStream(w)
	if err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	l := start(t, audit.DecisionLogConfig{Sink: sink})
	l.Record(full())
	if err := l.RecordDurably(t.Context(), full()); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("a pipe is durable: %v", err)
	}
	if err := l.stop(); err != nil {
		t.Error(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	got := parse(t, text)
	if len(got) != 2 || got[0].Reason != "policy_denied" || got[1].Reason != audit.ReasonUnavailable {
		t.Errorf("lines are %+v", got)
	}
}

// A reader that died or stands still stops nobody, nor the end of the process.
func TestStreamWithoutAReader(t *testing.T) {
	t.Parallel()
	for name, closed := range map[string]bool{"dead": true, "stuck": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close() })
			sink, err := audit.NewStream(w)
			if err != nil || w.Close() != nil || closed && r.Close() != nil {
				t.Fatal(err)
			}
			l := start(t, audit.DecisionLogConfig{Sink: sink, MaxRecords: 1000})
			for range 5000 {
				l.Record(full())
			}
			if n := l.value(t, "chancery_decisions_dropped_total"); n < 3000 {
				t.Errorf("%v dropped", n)
			}
			begin := time.Now()
			err = l.stop()
			if took := time.Since(begin); took > 30*time.Second || (err != nil) == closed {
				t.Errorf("ended with %v after %v", err, took)
			}
		})
	}
}

func TestNewDecisionLogRefuses(t *testing.T) {
	t.Parallel()
	if _, err := audit.NewDecisionLog(audit.DecisionLogConfig{}); err == nil {
		t.Error("a log without a sink")
	}
}

func TestMetricsAreLinted(t *testing.T) {
	t.Parallel()
	l := start(t, audit.DecisionLogConfig{Sink: openFile(t, audit.FileConfig{Path: filepath.Join(t.TempDir(), "d")})})
	problems, err := testutil.GatherAndLint(l.reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// BenchmarkRecord has the whole cost of a record: that of who decides, and that
// of encoding and writing it.
func BenchmarkRecord(b *testing.B) {
	sink := &slow{File: openFile(b, audit.FileConfig{Path: filepath.Join(b.TempDir(), "d")})}
	l := start(b, audit.DecisionLogConfig{Sink: sink})
	d := full()
	var recording time.Duration
	b.ReportAllocs()
	for n := 0; n < b.N; n += 1000 {
		begin := time.Now()
		for range 1000 {
			l.Record(d)
		}
		recording += time.Since(begin)
		for sink.lines.Load() < int64(n+1000) {
			time.Sleep(100 * time.Microsecond)
		}
	}
	b.ReportMetric(float64(recording.Nanoseconds())/float64(b.N), "recording-ns/op")
	b.ReportMetric(float64(sink.busy.Load())/float64(b.N), "writing-ns/op")
	if n := l.value(b, "chancery_decisions_dropped_total"); n > 0 {
		b.Errorf("%v dropped", n)
	}
}

func BenchmarkRecordDurably(b *testing.B) {
	l := start(b, audit.DecisionLogConfig{Sink: openFile(b, audit.FileConfig{Path: filepath.Join(b.TempDir(), "d")}), Wait: time.Minute})
	d := full()
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := l.RecordDurably(context.Background(), d); err != nil {
				b.Error(err)
			}
		}
	})
}
