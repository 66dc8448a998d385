package idptest

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// process is a program with whatever it starts itself: a process group.
type process struct{ group int }

// run starts a program until the test ends. Its output is shown if the test
// fails.
func run(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{group: cmd.Process.Pid}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed, so it fails
	}()
	t.Cleanup(func() {
		p.signal(t, syscall.SIGKILL)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Error("it does not end")
		}
		_ = log.Close()
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("%s:\n%s", cmd.Path, text)
		}
	})
	return p
}

func (p *process) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(-p.group, s); err != nil {
		t.Errorf("%v: %v", s, err)
	}
}

// Hang implements Provider: connections are taken, and nothing is answered.
func (p *process) Hang(t testing.TB) (resume func()) {
	t.Helper()
	p.signal(t, syscall.SIGSTOP)
	return func() { p.signal(t, syscall.SIGCONT) }
}
