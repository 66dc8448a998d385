package main

import (
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// eventually runs a command again and again until what it writes matches a
// pattern.
func eventually(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile(args[0])
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		_ = ts.Exec(args[1], args[2:]...)
		text := ts.ReadFile("stdout") + ts.ReadFile("stderr")
		if pattern.MatchString(text) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no match of %q in:\n%s", args[0], text)
		}
	}
}

// pause stops the process in the background that has this argument, as a host
// does that hangs. It takes no other signal than KILL from then on.
func pause(ts *testscript.TestScript, _ bool, args []string) {
	for _, cmd := range ts.BackgroundCmds() {
		if slices.Contains(cmd.Args, args[0]) {
			ts.Check(cmd.Process.Signal(syscall.SIGSTOP))
			ts.Defer(func() { _ = cmd.Process.Kill() }) // it may have ended
			return
		}
	}
	ts.Fatalf("nothing runs with argument %q", args[0])
}
