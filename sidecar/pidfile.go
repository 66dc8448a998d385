package sidecar

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/atomicfile"
)

// process is a running Envoy. Signals through it reach that process and never
// a later one of the same number.
type process struct {
	*os.Process
	pid int
	// done is closed when it has ended.
	done <-chan struct{}
}

// writePidfile writes down which process this is, for a later agent.
func (p *process) writePidfile(path string) error {
	birth, err := birthOf(p.pid)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, fmt.Appendf(nil, "%d %s\n", p.pid, birth), 0o600)
}

// readPidfile finds the process of a pidfile if it is still alive.
func readPidfile(path string) (*process, error) {
	text, err := identity.ReadPrivate(path)
	if err != nil {
		return nil, err
	}
	var pid int
	var birth string
	if _, err := fmt.Sscanf(string(text), "%d %s\n", &pid, &birth); err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	return findProcess(pid, birth)
}

// findProcess returns the process of that number, which need not be a child,
// and watches until it ends. It must be the one of that birth, unless birth is
// empty.
func findProcess(pid int, birth string) (*process, error) {
	handle, err := os.FindProcess(pid)
	if err != nil {
		return nil, err
	}
	// The handle is open, so this is about the process that it stands for.
	found, err := birthOf(pid)
	if err == nil && birth != "" && found != birth {
		err = fmt.Errorf("process %d is another one by now", pid)
	}
	if err != nil {
		return nil, errors.Join(err, handle.Release())
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if now, err := birthOf(pid); err != nil || now != found {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	return &process{Process: handle, pid: pid, done: done}, nil
}

// birthOf tells a process from others of the same number: the boot, and the
// time in it when the process started.
func birthOf(pid int) (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// proc(5): the command, in parentheses, may hold anything. State and
	// start time are the third field and the twenty-second.
	_, rest, ok := strings.Cut(string(stat[max(0, bytes.LastIndexByte(stat, ')')):]), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return "", fmt.Errorf("process %d: unknown form of /proc stat", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return "", errors.New("process has ended")
	}
	return fields[19] + "@" + strings.TrimSpace(string(boot)), nil
}
