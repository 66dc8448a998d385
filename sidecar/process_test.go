package sidecar_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// script is a program that says it is an Envoy and then lives on.
func script(t *testing.T, version, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "envoy")
	text := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'envoy  version: 0/%s/Clean'; exit; fi\n%s\n", version, body)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// pid reads the number of the process in the agent's pidfile; 0 for none.
func (a *agent) pid() int {
	text, err := os.ReadFile(filepath.Join(a.config.StateDir, "envoy.pid"))
	if err != nil {
		return 0
	}
	number, _, _ := strings.Cut(string(text), " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		a.t.Fatal(err)
	}
	return pid
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func running(a *agent) func() error {
	return func() error {
		if pid := a.pid(); pid == 0 || !alive(pid) {
			return errors.New("no envoy runs")
		}
		return nil
	}
}

func TestSupervisorStartsRestartsAndEndsEnvoy(t *testing.T) {
	a := newAgent(t, newControlPlane(t, public))
	log := filepath.Join(t.TempDir(), "arguments")
	a.config.EnvoyCommand = []string{script(t, "1.40.0", "echo \"$@\" >>"+log+"; exec sleep 1000"), "--concurrency", "1"}
	a.config.DrainTime = 100 * time.Millisecond
	a.start()
	eventually(t, "envoy is started", running(a))

	first := a.pid()
	if sid, _, errno := syscall.Syscall(syscall.SYS_GETSID, uintptr(first), 0, 0); errno != 0 || int(sid) != first {
		t.Errorf("envoy's session is %d (%v), want its own, %d", sid, errno, first)
	}
	check(t, syscall.Kill(first, syscall.SIGKILL))
	eventually(t, "envoy is started again", func() error {
		arguments, err := os.ReadFile(log)
		return errors.Join(err, running(a)(), is(a.pid() != first, true), is(strings.Count(string(arguments), "\n"), 2))
	})
	second := a.pid()
	a.stop()
	if alive(second) || a.pid() != 0 {
		t.Error("envoy or its pidfile outlived the agent's orderly end")
	}
	arguments, err := os.ReadFile(log)
	check(t, err)
	want := "--concurrency 1 --config-path " + filepath.Join(a.config.StateDir, "envoy.yaml") +
		" --disable-hot-restart --drain-time-s 1 --drain-strategy immediate\n"
	if string(arguments) != want+want {
		t.Errorf("arguments:\n%s", arguments)
	}
}

func TestSupervisorKillsAnEnvoyThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	a := newAgent(t, newControlPlane(t, public))
	a.config.EnvoyCommand = []string{script(t, "1.40.0", "trap '' TERM; while :; do sleep 0.1; done")}
	a.start()
	eventually(t, "envoy is started", running(a))
	time.Sleep(200 * time.Millisecond) // for the trap
	pid := a.pid()
	a.stop()
	if alive(pid) {
		t.Error("envoy is alive")
	}
}

func TestSupervisorRefusesOldEnvoys(t *testing.T) {
	t.Parallel()
	a := newAgent(t, newControlPlane(t, public))
	a.config.EnvoyCommand = []string{script(t, "1.39.5", "touch "+filepath.Join(a.config.ControlPlane+".ran"))}
	a.start()
	time.Sleep(500 * time.Millisecond)
	if _, err := os.Stat(a.config.ControlPlane + ".ran"); err == nil {
		t.Error("an Envoy without security fixes was started")
	}
}

// TestEnvoySurvivesItsAgent runs an agent in a process of its own, kills it,
// and lets another one find the Envoy: what trust that has is not known then.
func TestEnvoySurvivesItsAgent(t *testing.T) {
	t.Parallel()
	cp := newControlPlane(t, public)
	cp.start()
	a := newAgent(t, cp)
	a.config.EnvoyCommand = []string{script(t, "1.40.0", "exec sleep 1000")}
	a.config.DrainTime = 100 * time.Millisecond
	victim := exec.Command(os.Args[0], "-test.run=^TestAgentProcess$")
	victim.Env = append(os.Environ(), "AGENT_STATE="+a.config.StateDir, "AGENT_ENVOY="+a.config.EnvoyCommand[0])
	check(t, victim.Start())
	eventually(t, "envoy is started", running(a))
	pid := a.pid()
	check(t, victim.Process.Kill())
	_ = victim.Wait() // killed

	a.start()
	time.Sleep(300 * time.Millisecond)
	if !alive(pid) || a.pid() != pid {
		t.Fatalf("envoy %d (alive: %v) was not taken over: the pidfile says %d", pid, alive(pid), a.pid())
	}
	eventually(t, "the agent has joined", joined(a))
	eventually(t, "it reports", func() error { return is(cp.lastReport().GetSvidSerial(), a.Identity().Certificate.Serial) })
	if got := cp.lastReport().GetTrustSequence(); got != 0 {
		t.Errorf("trust %d is reported, and nobody asked the Envoy", got)
	}
	check(t, syscall.Kill(pid, syscall.SIGKILL))
	eventually(t, "an Envoy found again is restarted, too", func() error {
		return errors.Join(running(a)(), is(a.pid() != pid, true))
	})
	eventually(t, "the trust is reported of one that knows no older", func() error {
		return is(cp.lastReport().GetTrustSequence(), cp.ca.Trust().GetSequence())
	})
}

// TestAgentProcess is the agent of TestEnvoySurvivesItsAgent.
func TestAgentProcess(t *testing.T) {
	if os.Getenv("AGENT_STATE") == "" {
		t.Skip("run by TestEnvoySurvivesItsAgent")
	}
	a := newAgent(t, newControlPlane(t, public))
	a.config.StateDir, a.config.EnvoyCommand = os.Getenv("AGENT_STATE"), []string{os.Getenv("AGENT_ENVOY")}
	a.start()
	time.Sleep(time.Minute)
}

func TestPidfileOfAStranger(t *testing.T) {
	t.Parallel()
	stranger := exec.Command("sleep", "1000")
	check(t, stranger.Start())
	defer func() {
		_ = stranger.Process.Kill()
		_ = stranger.Wait() // killed
	}()
	a := newAgent(t, newControlPlane(t, public))
	a.config.EnvoyCommand = []string{script(t, "1.40.0", "exec sleep 1000")}
	a.config.DrainTime = 100 * time.Millisecond
	check(t, os.MkdirAll(a.config.StateDir, 0o700))
	// The number of a living process, but born at another time.
	text := fmt.Sprintf("%d 1@0d5f3a52-0000-0000-0000-000000000000\n", stranger.Process.Pid)
	check(t, os.WriteFile(filepath.Join(a.config.StateDir, "envoy.pid"), []byte(text), 0o600))
	a.start()
	eventually(t, "an Envoy of its own", func() error {
		return errors.Join(running(a)(), is(a.pid() != stranger.Process.Pid, true))
	})
	a.stop()
	if !alive(stranger.Process.Pid) {
		t.Error("a stranger was killed")
	}
}
