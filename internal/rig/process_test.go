package rig

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func shell(t *testing.T, r *Rig, name, script string) *Process {
	t.Helper()
	p, err := r.run(name, "/bin/sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newRig(t *testing.T) *Rig {
	t.Helper()
	r := &Rig{dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(r.dir, "log"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestProcess(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := shell(t, r, "p", "trap 'echo asked; exit' TERM; echo up; while :; do sleep 0.01; done")
	saying(t, p, "up")
	if err := p.Terminate(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	saying(t, p, "up\nasked")
	if p.Running() {
		t.Error("still running")
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	saying(t, p, "up\nasked\nup")
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	saying(t, p, "up\nasked\nup")
}

func saying(t *testing.T, p *Process, want string) {
	t.Helper()
	err := Until(t.Context(), 5*time.Second, func(context.Context) error {
		if got := p.Tail(10); got != want {
			return errors.New("says " + got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCloseEndsWhatKilledProcessesLeftBehind(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := shell(t, r, "parent", "sleep 600 & echo started; wait")
	saying(t, p, "started")
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	inside := func(value string) bool { return strings.HasPrefix(value, r.dir+"/") }
	left, err := marked(inside)
	if err != nil || len(left) != 1 {
		t.Fatalf("%d processes are left, want the sleep: %v", len(left), err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err = marked(inside); err != nil || len(left) != 0 {
		t.Errorf("%d processes are left: %v", len(left), err)
	}
	if _, err := os.Stat(r.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
}

func TestProcessesDoNotInheritConfiguration(t *testing.T) {
	t.Setenv("CHANCERY_STATE", "/elsewhere")
	t.Setenv("CONSUL_HTTP_ADDR", "elsewhere:8500")
	r := newRig(t)
	p := shell(t, r, "p", `echo "[$CHANCERY_STATE$CONSUL_HTTP_ADDR]"`)
	saying(t, p, "[]")
}
