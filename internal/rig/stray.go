package rig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// mark is the environment variable by which whatever a rig started is found
// again, also what its processes started and left behind. Its value begins with
// the rig's directory, which no other rig has.
const mark = "CHANCERY_RIG="

// marked returns the processes whose mark has that value. Each handle stays
// with its process: one that ends and whose number is used again is not
// signalled.
func marked(matches func(value string) bool) ([]*os.Process, error) {
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil, err
	}
	var found []*os.Process
	for _, path := range environs {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || pid == os.Getpid() || !hasMark(path, matches) {
			continue
		}
		p, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		if hasMark(path, matches) { // still the one that was looked at
			found = append(found, p)
		}
	}
	return found, nil
}

func hasMark(path string, matches func(string) bool) bool {
	environ, err := os.ReadFile(path)
	if err != nil {
		return false // gone, or not ours
	}
	for variable := range bytes.SplitSeq(environ, []byte{0}) {
		if value, ok := bytes.CutPrefix(variable, []byte(mark)); ok {
			return matches(string(value))
		}
	}
	return false
}

// endAll kills until nobody is left: an agent may have started one more Envoy
// while it was about to be killed.
func endAll(matches func(string) bool) error {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(pollInterval) {
		processes, err := marked(matches)
		if err != nil || len(processes) == 0 {
			return err
		}
		for _, p := range processes {
			if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return fmt.Errorf("kill process %d: %w", p.Pid, err)
			}
		}
	}
	return errors.New("processes are left that do not die")
}
