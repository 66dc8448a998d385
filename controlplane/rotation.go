package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// rotateEvery is how often the driver looks whether a step is due, or what it
// waited for has come. An authority lives for a minute at least.
const rotateEvery = time.Second

// authorities is the part of a [ca.CA] that the rotation needs.
type authorities interface {
	Authorities() []ca.Authority
	Live() []ca.Certificate
	Trust() *chancerypb.Trust
	Prepare(newRoot bool) (ca.Authority, error)
	Activate(id string) error
	Taint(id string) error
	Revoke(id string) error
}

// rotation takes the authority from one to the next without a refused
// connection. What is to be done follows from the authorities alone, which are
// on disk: after a crash it goes on where it was.
//
// The driver does the steps of an authority that is past half of its life. What
// an operator begins before that stays as the operator leaves it till then.
type rotation struct {
	proxies *proxies
	now     func() time.Time
	log     *slog.Logger
	metrics *metrics
	// record takes down who did what.
	record func(step StepStatus, by string, err error)

	mu sync.Mutex
	// told is what was last said of a step that waits or fails.
	told map[string]string
	// sequence is of the newest trust, since when.
	sequence uint64
	since    time.Time
}

func newRotation(ps *proxies, log *slog.Logger, m *metrics, record func(StepStatus, string, error)) *rotation {
	return &rotation{proxies: ps, now: time.Now, log: log, metrics: m, record: record, told: map[string]string{}}
}

// run takes steps when they are due, until ctx ends.
func (r *rotation) run(ctx context.Context, authority func() authorities) {
	tick := time.NewTicker(rotateEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if a := authority(); a != nil {
				r.advance(a)
			}
		}
	}
}

// advance takes every step that is due and waits for nobody, or has waited long
// enough.
func (r *rotation) advance(a authorities) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.look(a)
	for done := true; done; {
		done = false
		for _, step := range r.plan(a) {
			if r.due(step) && r.take(a, step, "rotation", false) == nil {
				done = true
				break // the plan is another now
			}
		}
	}
}

// look returns the sequence of the newest trust, and since when it is. The caller
// holds the lock.
func (r *rotation) look(a authorities) (uint64, time.Time) {
	if sequence := a.Trust().GetSequence(); sequence != r.sequence {
		r.sequence, r.since = sequence, r.now()
	}
	return r.sequence, r.since
}

// trust returns the sequence of the newest trust, and since when it is.
func (r *rotation) trust(a authorities) (uint64, time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.look(a)
}

// due reports whether the driver shall take a step now, and says so when it
// would but for proxies that it waits for.
func (r *rotation) due(step StepStatus) bool {
	now := r.now()
	switch {
	case now.Before(step.Due):
		return false
	case len(step.Waiting) == 0:
		return true
	case !step.Forced.IsZero() && !now.Before(step.Forced):
		return true
	}
	r.tell(step, fmt.Sprint(len(step.Waiting)), func(log *slog.Logger) {
		log.Warn("rotation of the authority waits for proxies", "waiting", len(step.Waiting), "first", step.Waiting[0].String())
	})
	return false
}

// command takes a step that an operator asks for. An empty authority is the
// only one that the step can be taken of.
func (r *rotation) command(a authorities, step Step, authority string, force bool, by string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	plan := slices.DeleteFunc(r.plan(a), func(s StepStatus) bool {
		return s.Step != step || (authority != "" && s.Authority != authority)
	})
	switch {
	case len(plan) == 1:
	case authority == "":
		return fmt.Errorf("there is no authority to %s, or more than one: name it", step)
	default: // it needs no wait, or the CA says why it cannot be
		plan = []StepStatus{{Step: step, Authority: authority}}
	}
	if len(plan[0].Waiting) > 0 && !force {
		return &WaitingError{Step: plan[0]}
	}
	return r.take(a, plan[0], by, force)
}

// prepare makes the next authority for an operator.
func (r *rotation) prepare(a authorities, newRoot bool, by string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	made, err := a.Prepare(newRoot)
	r.done(StepStatus{Step: StepPrepare, Authority: made.ID}, by, false, err)
	return err
}

// take takes one step. The caller holds the lock.
func (r *rotation) take(a authorities, step StepStatus, by string, force bool) (err error) {
	switch step.Step {
	case StepPrepare:
		var made ca.Authority
		made, err = a.Prepare(false)
		step.Authority = made.ID
	case StepActivate:
		err = a.Activate(step.Authority)
	case StepTaint:
		err = a.Taint(step.Authority)
	case StepRevoke:
		err = a.Revoke(step.Authority)
	default:
		err = errors.New("no such step")
	}
	r.done(step, by, force || len(step.Waiting) > 0, err)
	return err
}

// done says what became of a step.
func (r *rotation) done(step StepStatus, by string, forced bool, err error) {
	r.record(step, by, err)
	switch {
	case err != nil:
		r.metrics.rotationFailures.WithLabelValues(string(step.Step)).Inc()
		r.tell(step, err.Error(), func(log *slog.Logger) { log.Error("rotation of the authority failed", "err", err) })
		return
	case forced && len(step.Waiting) > 0:
		r.metrics.rotationForced.WithLabelValues(string(step.Step)).Inc()
		for _, p := range step.Waiting {
			r.log.Error("step of the authority's rotation was forced without this proxy: its connections may be refused",
				"step", string(step.Step), "authority", step.Authority, "by", by, "proxy", p.String())
		}
	}
	clear(r.told)
	r.metrics.rotations.WithLabelValues(string(step.Step)).Inc()
	r.log.Info("authority rotated", "step", string(step.Step), "authority", step.Authority, "by", by)
}

// tell logs what there is to say of a step, unless it is what was said last.
func (r *rotation) tell(step StepStatus, text string, log func(*slog.Logger)) {
	key := string(step.Step) + step.Authority
	if r.told[key] == text {
		return
	}
	r.told[key] = text
	log(r.log.With("step", string(step.Step), "authority", step.Authority))
}
