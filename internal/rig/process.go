package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Process is a program that can be started again and again in the same way. It
// is in a process group of its own, so a Ctrl-C in the terminal reaches the
// rig's owner alone.
type Process struct {
	// Name is unique in the rig.
	Name string
	path string
	args []string
	env  []string
	log  string

	cmd  *exec.Cmd
	done chan struct{}
}

// Start starts the program. It must not be running.
func (p *Process) Start() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer log.Close()
	cmd := exec.Command(p.path, p.args...) //nolint:noctx // a process is ended by the rig, not by whoever's context started it
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() {
		_ = cmd.Wait() // how it ended stands in its log
		close(done)
	}()
	return nil
}

// Running reports whether the program was started and has not ended.
func (p *Process) Running() bool {
	if p.done == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Kill ends the program as a crash would, by SIGKILL. What it started lives on.
func (p *Process) Kill() error { return p.end(os.Kill, time.Second) }

// Terminate asks the program to end, by SIGTERM, and waits for it.
func (p *Process) Terminate(within time.Duration) error { return p.end(syscall.SIGTERM, within) }

func (p *Process) end(signal os.Signal, within time.Duration) error {
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", p.Name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(within):
		return fmt.Errorf("end %s: still there %s after %s", p.Name, within, signal)
	}
}

// answered stands in the access log of every request that went well.
const answered = `"status":200`

// Tail returns the last lines that the program, and what it started, wrote,
// without requests that went well.
func (p *Process) Tail(lines int) string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(data)), "\n"), func(line string) bool {
		return strings.Contains(line, answered)
	})
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// environment is ours without what would configure the programs behind the
// rig's back.
func environment(extra ...string) []string {
	own := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "CHANCERY_") || strings.HasPrefix(v, "CONSUL_")
	})
	return append(own, extra...)
}

// Until calls condition until it returns nil, for at most as long as said, and
// returns its last error.
func Until(ctx context.Context, within time.Duration, condition func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var last error
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err // not the error of a call that was cut short
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", within, last)
		case <-tick.C:
		}
	}
}

const pollInterval = 5 * time.Millisecond
