package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// steady is how long an Envoy must have lived for its end to be restarted
	// from without delay.
	steady = 10 * time.Second
	// killAfter bounds the wait for an Envoy that was told to end.
	killAfter = 5 * time.Second
)

// supervisor starts Envoy and keeps it running. Envoy is made to outlive the
// agent: it has a session of its own, and writes to the agent's own stdout and
// stderr rather than to a pipe. A later agent finds it again.
//
// Hot restart is switched off. It would let a second Envoy take over the first
// one's listeners, which never happens here, and it needs a number that no
// other Envoy of the host uses.
type supervisor struct {
	command   []string
	bootstrap string
	pidfile   string
	admin     *admin
	drainTime time.Duration
	log       *slog.Logger
	starts    prometheus.Counter
	// died is told of each Envoy that ends by itself, obtained whether there is
	// one, of an earlier agent.
	died     func()
	obtained func(found bool)
	// checked says that the command's version was found good.
	checked bool
}

// run supervises until ctx ends; then it drains Envoy and ends it.
func (s *supervisor) run(ctx context.Context) error {
	pause := backoff{min: 100 * time.Millisecond, max: 10 * time.Second}
	for {
		began := time.Now()
		if p, err := s.obtain(ctx); err != nil {
			s.log.ErrorContext(ctx, "envoy not started", "err", err)
		} else {
			select {
			case <-ctx.Done():
				s.stop(context.WithoutCancel(ctx), p)
				return nil
			case <-p.done:
				s.log.ErrorContext(ctx, "envoy ended", "pid", p.pid, "lived", time.Since(began))
				s.died()
			}
		}
		if time.Since(began) > steady {
			pause.reset()
		}
		if !pause.wait(ctx) {
			return nil
		}
	}
}

// obtain returns the Envoy of an earlier agent, or else starts one.
func (s *supervisor) obtain(ctx context.Context) (*process, error) {
	if p := s.find(ctx); p != nil {
		s.log.InfoContext(ctx, "envoy found", "pid", p.pid)
		s.obtained(true)
		return p, nil
	}
	s.obtained(false)
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	return s.start(ctx)
}

// find returns the running Envoy: the one of the pidfile, or, since an agent
// may have died before it wrote that, the one whose admin interface answers.
func (s *supervisor) find(ctx context.Context) *process {
	if p, err := readPidfile(s.pidfile); err == nil {
		return p
	}
	pid, err := s.admin.pid(ctx)
	if err != nil {
		return nil
	}
	p, err := findProcess(pid, "")
	if err != nil {
		return nil
	}
	if err := p.writePidfile(s.pidfile); err != nil {
		s.log.ErrorContext(ctx, "pidfile not written", "err", err)
	}
	return p
}

// check refuses an Envoy that lacks security fixes. Once is enough: a restart
// shall be fast.
func (s *supervisor) check(ctx context.Context) error {
	if s.checked {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, s.command[0], "--version").Output() //nolint:gosec // the operator's own command
	if err != nil {
		return fmt.Errorf("ask %q for its version: %w", s.command[0], err)
	}
	err = CheckEnvoyVersion(string(out))
	s.checked = err == nil
	return err
}

func (s *supervisor) start(ctx context.Context) (*process, error) {
	cmd := exec.Command(s.command[0], s.arguments()...) //nolint:gosec,noctx // the operator's own command; it outlives ctx
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start envoy: %w", err)
	}
	s.starts.Inc()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // how it ended shows in its own log
	}()
	p := &process{Process: cmd.Process, pid: cmd.Process.Pid, done: done}
	s.log.InfoContext(ctx, "envoy started", "pid", p.pid)
	if err := p.writePidfile(s.pidfile); err != nil {
		s.log.ErrorContext(ctx, "pidfile not written", "err", err)
	}
	return p, nil
}

// arguments completes the operator's command.
func (s *supervisor) arguments() []string {
	args := slices.Clone(s.command[1:])
	if !slices.ContainsFunc(args, isConfigFlag) {
		args = append(args, "--config-path", s.bootstrap)
	}
	seconds := strconv.Itoa(int(math.Ceil(s.drainTime.Seconds())))
	return append(args, "--disable-hot-restart", "--drain-time-s", seconds, "--drain-strategy", "immediate")
}

func isConfigFlag(arg string) bool {
	return arg == "-c" || arg == "--config-path" || arg == "--config-yaml"
}

// stop ends Envoy: drained if possible, by force if need be.
func (s *supervisor) stop(ctx context.Context, p *process) {
	if err := s.drain(ctx, p); err != nil {
		s.log.WarnContext(ctx, "envoy not drained", "err", err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.log.ErrorContext(ctx, "envoy not told to end", "pid", p.pid, "err", err)
	}
	select {
	case <-p.done:
	case <-time.After(killAfter):
		s.log.WarnContext(ctx, "envoy killed", "pid", p.pid)
		_ = p.Kill() // it may have ended meanwhile
		<-p.done
	}
	_ = os.Remove(s.pidfile)
}

// drain has Envoy refuse new work gently and waits, up to the drain time,
// until its connections are gone.
func (s *supervisor) drain(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, s.drainTime)
	defer cancel()
	if err := s.admin.drain(ctx); err != nil {
		return err
	}
	for {
		select {
		case <-p.done:
			return nil
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
		if n, err := s.admin.connections(ctx); err == nil && n == 0 {
			return nil
		}
	}
}
