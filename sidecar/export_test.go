package sidecar

import (
	"log/slog"
	"time"
)

// SetProbation changes how long an Envoy must live for a promotion. To be
// called before Run.
func (a *Agent) SetProbation(d time.Duration) { a.rollout.probation = d }

// ListenForEnvoy is listenForEnvoy.
var ListenForEnvoy = listenForEnvoy

// LastGood is lastGood with revisions that hold nothing.
type LastGood struct{ l *lastGood }

func OpenLastGood(dir string, log *slog.Logger) (*LastGood, error) {
	l, err := openLastGood(dir, log)
	return &LastGood{l}, err
}

func (l *LastGood) Begin(revision string) error  { return l.l.begin(&snapshot{revision: revision}) }
func (l *LastGood) Update(revision string) error { return l.l.update(&snapshot{revision: revision}) }
func (l *LastGood) Acknowledge() error           { return l.l.acknowledge() }
func (l *LastGood) Promote() error               { return l.l.promote() }
func (l *LastGood) Counter() uint64              { return l.l.counter }

// Load returns the revision that is loaded, or "".
func (l *LastGood) Load() string {
	if s := l.l.load(); s != nil {
		return s.revision
	}
	return ""
}
