package audit_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/audit"
)

// child is the variable that makes the test's binary a process to be killed: it
// is the path that it writes to.
const child = "AUDIT_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(child); path != "" {
		recordUntilKilled(path)
	}
	os.Exit(m.Run())
}

// recordUntilKilled writes decisions, and says which ones it was told are
// recorded.
func recordUntilKilled(path string) {
	sink, err := audit.NewFile(audit.FileConfig{Path: path, MaxSize: 64 << 10, MaxFiles: 1000, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	l, err := audit.NewDecisionLog(audit.DecisionLogConfig{Sink: sink, Logger: slog.New(slog.DiscardHandler), Wait: time.Minute})
	if err != nil {
		panic(err)
	}
	go l.Run(context.Background())
	for worker := range 20 {
		go func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("%d-%d", worker, n)
				if l.RecordDurably(context.Background(), &audit.Decision{ID: id, Decision: audit.Allow, Path: "/" + strings.Repeat("a", n%900)}) == nil {
					fmt.Println(id)
				}
			}
		}()
	}
	select {}
}

// A06: whatever a process was told is recorded is there when it is killed, and
// no line is torn.
func TestKilledProcessLosesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	acknowledged := 0
	for range 5 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), child+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil || cmd.Start() != nil {
			t.Fatal(err)
		}
		var ids []string
		for in := bufio.NewScanner(out); in.Scan(); {
			if ids = append(ids, in.Text()); len(ids) == 2000 {
				if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait()                                    // it was killed
		openFile(t, audit.FileConfig{Path: path}).Close() // as the next process would
		files, err := filepath.Glob(path + "*")
		if err != nil {
			t.Fatal(err)
		}
		recorded := map[string]bool{}
		for _, line := range decisions(t, files...) {
			recorded[line.ID] = true
		}
		for _, id := range ids {
			if !recorded[id] {
				t.Fatalf("%s was lost", id)
			}
		}
		acknowledged += len(ids)
		for _, f := range files {
			_ = os.Remove(f)
		}
	}
	if acknowledged < 10000 {
		t.Errorf("only %d records", acknowledged)
	}
}

func TestFileMendsATornLine(t *testing.T) {
	t.Parallel()
	whole := `{"schema":1,"kind":"decision","id":"whole"}` + "\n"
	for name, torn := range map[string]string{
		"none": "", "short": `{"schema":1,"ki`, "long": `{"schema":1,"path":"` + strings.Repeat("a", 200<<10),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "decisions.jsonl")
			if err := os.WriteFile(path, []byte(whole+torn), 0o600); err != nil {
				t.Fatal(err)
			}
			record(t, path, &audit.Decision{ID: "next"})
			if got := decisions(t, path); len(got) != 2 || got[0].ID != "whole" || got[1].ID != "next" {
				t.Errorf("lines are %+v", got)
			}
		})
	}
}

func TestFileRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	taken := openFile(t, audit.FileConfig{Path: in("taken")})
	defer taken.Close()
	err := errors.Join(os.WriteFile(in("readable"), nil, 0o600), os.Chmod(in("readable"), 0o640),
		os.Symlink(in("new"), in("link")), syscall.Mkfifo(in("fifo"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"taken", "readable", "link", "fifo", "", "readable/log"} {
		f, err := audit.NewFile(audit.FileConfig{Path: in(name), Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			err = f.Append(nil, false)
		}
		if err == nil {
			t.Errorf("opened %q: %v", name, f.Close())
		}
	}
}

func TestFileRotates(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	f := openFile(t, audit.FileConfig{Path: path, MaxSize: 100, MaxFiles: 3})
	for n := range 10 {
		if err := f.Append([]byte(fmt.Sprintf(`{"schema":1,"sequence":%d,"path":"%s"}`+"\n", n, strings.Repeat("a", 30))), n%2 == 0); err != nil {
			t.Fatal(err)
		}
	}
	for name, first := range map[string]uint64{path: 9, path + ".1": 8, path + ".2": 7, path + ".3": 6} {
		got := decisions(t, name)
		if info, err := os.Stat(name); len(got) != 1 || got[0].Sequence != first || err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has %+v, %v", name, got, info.Mode())
		}
	}
	if files, _ := filepath.Glob(path + "*"); len(files) != 4 {
		t.Errorf("files are %v", files)
	}
}

// A04, T17: a log whose file is taken away goes on in a new one, also when the
// directory is gone; what must be recorded is in the new one.
func TestFileIsTakenAway(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]func(path string) error{
		"deleted":         os.Remove,
		"directory":       func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"renamed":         func(path string) error { return os.Rename(path, path+".old") },
		"rotated by copy": func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "logs", "decisions.jsonl")
			l := start(t, audit.DecisionLogConfig{Sink: openFile(t, audit.FileConfig{Path: path}), Wait: time.Minute})
			if err := l.RecordDurably(t.Context(), full()); err != nil {
				t.Fatal(err)
			}
			if err := take(path); err != nil {
				t.Fatal(err)
			}
			if err := l.RecordDurably(t.Context(), full()); err != nil {
				t.Fatal(err)
			}
			if got := decisions(t, path); len(got) != 1 || got[0].Sequence != 2 {
				t.Errorf("lines are %+v", got)
			}
		})
	}
}

// A link in the place of the file is not followed: nothing is recorded then.
func TestFileIsReplacedByALink(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	l := start(t, audit.DecisionLogConfig{Sink: openFile(t, audit.FileConfig{Path: path}), Wait: 5 * time.Second})
	target := filepath.Join(t.TempDir(), "target")
	if err := errors.Join(os.Remove(path), os.Symlink(target, path)); err != nil {
		t.Fatal(err)
	}
	if err := l.RecordDurably(t.Context(), full()); !errors.Is(err, audit.ErrUnavailable) {
		t.Error(err)
	}
	if _, err := os.Stat(target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link was followed: %v", err)
	}
	if l.value(t, "chancery_decision_log_failing") != 1 {
		t.Error("nobody can see it")
	}
}

// A file that cannot be moved aside grows rather than that decisions are lost.
func TestFileThatCannotRotateGrows(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	if err := os.MkdirAll(filepath.Join(path+".1", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	f := openFile(t, audit.FileConfig{Path: path, MaxSize: 50, MaxFiles: 1})
	for range 5 {
		if err := f.Append([]byte(`{"schema":1,"path":"/a/path/of/some/length"}`+"\n"), false); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(decisions(t, path)); n != 5 {
		t.Errorf("%d lines", n)
	}
}

// mount mounts a file system for a test, which needs root.
func mount(t *testing.T, source, target, kind string, flags uintptr, data string) (unmount func()) {
	t.Helper()
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		t.Skipf("mounting needs root: %v", err)
	}
	unmount = sync.OnceFunc(func() { _ = syscall.Unmount(target, syscall.MNT_DETACH) })
	t.Cleanup(unmount)
	return unmount
}

// eventually waits until a required record is taken, and fails after the ten
// seconds that it may take.
func eventually(t *testing.T, l *running) {
	t.Helper()
	begin := time.Now()
	for l.RecordDurably(t.Context(), full()) != nil {
		if time.Sleep(50 * time.Millisecond); time.Since(begin) > 10*time.Second {
			t.Fatal("not recovered within 10s")
		}
	}
}

// A04, T17: on a full disk nothing is allowed that must be recorded, nobody
// waits, no line is torn, and what was dropped is counted. With room it goes on.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mount(t, "tmpfs", dir, "tmpfs", 0, "size=1m")
	path, ballast := filepath.Join(dir, "decisions.jsonl"), filepath.Join(dir, "ballast")
	l := start(t, audit.DecisionLogConfig{Sink: openFile(t, audit.FileConfig{Path: path}), MaxRecords: 500, Wait: 20 * time.Second})
	if err := os.WriteFile(ballast, make([]byte, 900<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	allowed, refused, last := 0, 0, time.Duration(0)
	for range 1000 {
		begin := time.Now()
		if l.RecordDurably(t.Context(), &audit.Decision{Decision: audit.Allow, Path: "/" + strings.Repeat("a", 500)}) == nil {
			allowed++
		} else {
			refused++
			last = time.Since(begin)
		}
	}
	for range 1000 {
		l.Record(full())
	}
	if allowed == 0 || refused < 500 || last > 10*time.Second {
		t.Errorf("%d allowed, %d refused, the last after %v", allowed, refused, last)
	}
	whole := 0
	for _, line := range decisions(t, path) { // no line is torn
		if line.Decision.Decision == audit.Allow {
			whole++
		}
	}
	if whole != allowed {
		t.Errorf("%d allowed, %d of it recorded", allowed, whole)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, l)
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	var told, logged uint64
	for _, line := range decisions(t, path) {
		told += line.Count
		if line.Kind == "decision" {
			logged++
		}
	}
	dropped := uint64(l.value(t, "chancery_decisions_dropped_total"))
	if told != dropped || dropped == 0 || float64(logged) != l.value(t, "chancery_decisions_logged_total") {
		t.Errorf("%d dropped, %d of it told of; %d lines", dropped, told, logged)
	}
}

// A04, T17: the same on a file system that has become read-only.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "decisions.jsonl")
	l := start(t, audit.DecisionLogConfig{Sink: openFile(t, audit.FileConfig{Path: path}), Wait: time.Second})
	if err := l.RecordDurably(t.Context(), full()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	unmount := mount(t, dir, dir, "", syscall.MS_BIND, "")
	mount(t, "", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
	if err := l.RecordDurably(t.Context(), full()); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("recorded: %v", err)
	}
	unmount()
	eventually(t, l)
	if got := decisions(t, path); got[0].Reason != audit.ReasonUnavailable || got[len(got)-1].Reason != "policy_denied" {
		t.Errorf("lines are %+v", got)
	}
}
