package controlplane

import (
	"fmt"
	"sync"
	"time"
)

const (
	// maxRetry is between two tries of a step that fails, and minRetry when the
	// end of the authority is near.
	maxRetry = time.Minute
	minRetry = 5 * time.Second
)

// failures are the steps that the driver has tried in vain. It is safe for
// concurrent use, and never locked for long: a try may take its time, and status
// is asked for meanwhile.
type failures struct {
	mu     sync.Mutex
	byStep map[string]*failure
}

// failure is what became of the tries of one step.
type failure struct {
	text  string
	since time.Time
	// again is when it is tried next, wait after the last try.
	again time.Time
	wait  time.Duration
	// loud is when it is said again though nothing is new.
	loud time.Time
}

// add notes that a step failed. It reports whether that has another cause than
// before, and whether it is to be said, since the cause is another or half of the
// time that was left is over.
func (fs *failures) add(step StepStatus, err error, now time.Time) (changed, loud bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.byStep[step.key()]
	if f == nil {
		f = &failure{since: now}
		fs.byStep[step.key()] = f
	}
	left := step.Ends.Sub(now)
	f.wait = min(max(2*f.wait, rotateEvery), max(left/20, minRetry), maxRetry)
	f.again = now.Add(f.wait)
	changed = f.text != err.Error()
	f.text = err.Error()
	if loud = changed || !now.Before(f.loud); loud {
		f.loud = now.Add(max(left/2, maxRetry))
	}
	return changed, loud
}

// waits reports whether a step that failed is to be tried later.
func (fs *failures) waits(step StepStatus, now time.Time) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.byStep[step.key()]
	return f != nil && now.Before(f.again)
}

// tell completes a step by what became of it.
func (fs *failures) tell(step *StepStatus) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.byStep[step.key()]; f != nil {
		step.Error, step.Failing = f.text, f.since
	}
}

// clear forgets all: a step was taken.
func (fs *failures) clear() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	clear(fs.byStep)
}

// key tells steps apart.
func (s StepStatus) key() string { return string(s.Step) + s.Authority }

// Problem says that the control plane cannot take the step, why, and what comes
// of it; empty when nothing is wrong.
func (s StepStatus) Problem() string {
	if s.Error == "" {
		return ""
	}
	ends := s.Ends.Format(time.RFC3339)
	comes := "the authority stays trusted until " + ends
	if s.Step == StepPrepare || s.Step == StepActivate {
		comes = fmt.Sprintf("the active authority ends at %s, and every connection of the mesh with it", ends)
		if !time.Now().Before(s.Ends) {
			comes = fmt.Sprintf("the active authority ended at %s: no connection of the mesh is taken any more", ends)
		}
	}
	return fmt.Sprintf("rotation fails since %s: %s; %s", s.Failing.Format(time.RFC3339), s.Error, comes)
}

// Mend says what to do when there is a problem.
func (s StepStatus) Mend() string {
	if s.Step == StepPrepare {
		return "bring back the key of --ca-key, or supply the next authority; otherwise do what the error says; then: chancery ca prepare"
	}
	return fmt.Sprintf("do what the error says; then: chancery ca %s %s", s.Step, s.Authority)
}
