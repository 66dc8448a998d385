package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// driver is who takes steps when no operator does.
const driver = "rotation"

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
	record   func(step StepStatus, by string, err error)
	failures failures
	// lastRequest is how long connections may be used after their handshake, in
	// nanoseconds.
	lastRequest atomic.Int64

	mu sync.Mutex
	// told is how many proxies a step was last said to wait for.
	told map[string]int
	// sequence is of the newest trust, since when.
	sequence uint64
	since    time.Time
}

func newRotation(ps *proxies, log *slog.Logger, m *metrics, record func(StepStatus, string, error)) *rotation {
	return &rotation{
		proxies: ps, now: time.Now, log: log, metrics: m, record: record,
		failures: failures{byStep: map[string]*failure{}}, told: map[string]int{},
	}
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
			if r.due(step) && r.take(a, step, driver, false) == nil {
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
	case now.Before(step.Due), r.failures.waits(step, now):
		return false
	case len(step.Waiting) == 0:
		return true
	case !step.Forced.IsZero() && !now.Before(step.Forced):
		return true
	}
	if waiting := len(step.Waiting); r.told[step.key()] != waiting {
		r.told[step.key()] = waiting
		r.log.Warn("rotation of the authority waits for proxies", "step", string(step.Step), "authority", step.Authority,
			"waiting", waiting, "first", step.Waiting[0].String())
	}
	return false
}

// needs is what an authority has to be for a step, and how it becomes that.
var needs = map[Step]string{
	StepActivate: "none is prepared; chancery ca prepare comes first",
	StepTaint:    "none is old; chancery ca activate comes first, of the next authority",
	StepRevoke:   "none is tainted; chancery ca taint comes first (one that is prepared has to be named)",
}

// next returns the next steps, and what became of those that failed.
func (r *rotation) next(a authorities) []StepStatus {
	steps := r.plan(a)
	for i := range steps {
		r.failures.tell(&steps[i])
	}
	return steps
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
	case authority == "" && len(plan) == 0:
		return fmt.Errorf("there is no authority to %s: %s", step, needs[step])
	case authority == "":
		return fmt.Errorf("there are %d authorities to %s: name one", len(plan), step)
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
		if made, err = a.Prepare(false); err == nil {
			step.Authority = made.ID
		}
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
	if err != nil {
		r.failed(step, by, err)
		return
	}
	r.record(step, by, nil)
	if forced && len(step.Waiting) > 0 {
		r.metrics.rotationForced.WithLabelValues(string(step.Step)).Inc()
		for _, p := range step.Waiting {
			r.log.Error("step of the authority's rotation was forced without this proxy: its connections may be refused",
				"step", string(step.Step), "authority", step.Authority, "by", by, "proxy", p.String())
		}
	}
	clear(r.told)
	r.failures.clear()
	r.metrics.rotations.WithLabelValues(string(step.Step)).Inc()
	r.log.Info("authority rotated", "step", string(step.Step), "authority", step.Authority, "by", by)
}

// failed says that a step failed. The driver tries again and again, and says it
// now and then; operators are told each time.
func (r *rotation) failed(step StepStatus, by string, err error) {
	r.metrics.rotationFailures.WithLabelValues(string(step.Step)).Inc()
	log := r.log.With("step", string(step.Step), "authority", step.Authority, "by", by, "err", err)
	if by != driver {
		r.record(step, by, err)
		log.Error("rotation of the authority failed")
		return
	}
	now := r.now()
	changed, loud := r.failures.add(step, err, now)
	if changed {
		r.record(step, by, err)
	}
	if loud {
		log.Error("rotation of the authority failed", "ends", step.Ends, "left", step.Ends.Sub(now).Round(time.Second), "mend", step.Mend())
	}
}
