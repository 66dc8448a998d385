package consul

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/chancery-mesh/chancery/discovery"
)

// A server that answers at once whatever it is asked must not make a busy loop,
// and a real change must not wait. So an early answer costs tokens: one with
// news few, one without many (one a second can be paid in the long run).
const (
	tokensPerSecond = 20
	maxTokens       = 200
	newsCost        = 1
	noNewsCost      = tokensPerSecond
)

const (
	// askAgain is when to ask again after an answer that is not to be trusted.
	askAgain   = time.Second
	minBackOff = 250 * time.Millisecond
	maxBackOff = 3 * time.Second
)

// watch is what is remembered between two questions about a service. But for
// the last fields it belongs to one worker alone.
type watch struct {
	service string
	// index to wait for a change of; 0 asks at once.
	index    uint64
	due      time.Time
	tokens   *rate.Limiter
	failures int
	believed []discovery.Instance
	skipped  []string

	// Guarded by Registry.mu.
	worker *worker
	// trouble is what Ready should say.
	trouble string
}

func newWatch(service string) *watch {
	return &watch{service: service, tokens: rate.NewLimiter(tokensPerSecond, maxTokens)}
}

// ask asks Consul once and says when to ask next.
func (r *Registry) ask(ctx context.Context, w *watch, wait time.Duration, notify func(discovery.Update)) {
	if !r.client.guard.Closed() {
		// The one call that may try decides for all: it must not wait.
		w.index = 0
	}
	start := time.Now()
	got, err := r.client.ask(ctx, w.service, w.index, wait)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		r.failed(w, err, notify)
	default:
		r.answered(w, got, time.Since(start) >= wait, notify)
	}
}

func (r *Registry) failed(w *watch, err error, notify func(discovery.Update)) {
	r.note(w, err.Error())
	r.deliver(w, notify, func() (discovery.Update, bool) { return r.keeper.Fail(w.service, err) })
	// What changed meanwhile should come at once.
	w.index = 0
	w.due = time.Now().Add(w.backOff())
}

// backOff grows with every failure in a row, and spreads.
func (w *watch) backOff() time.Duration {
	d := min(minBackOff<<min(w.failures, 8), maxBackOff)
	w.failures++
	return d*3/4 + rand.N(d/2) //nolint:gosec // G404: a spread need not be secret
}

func (r *Registry) answered(w *watch, got answer, waited bool, notify func(discovery.Update)) {
	w.failures = 0
	all, skipped := instances(w.service, got.entries, r.networks)
	a := discovery.Answer{
		Instances:   all,
		KnownLeader: got.meta.KnownLeader,
		LastContact: got.meta.LastContact,
		Filtered:    got.meta.ResultsFilteredByACLs,
		Index:       got.meta.LastIndex,
	}
	doubt := a.Doubt()
	r.note(w, doubt)
	u := r.deliver(w, notify, func() (discovery.Update, bool) {
		r.noteSkipped(w, skipped)
		return r.keeper.Judge(w.service, a)
	})
	news := !slices.Equal(u.Instances, w.believed)
	w.believed = u.Instances
	now := time.Now()
	switch {
	case doubt != "":
		w.index, w.due = 0, now.Add(askAgain)
	case waited:
		w.index, w.due = nextIndex(w.index, a.Index), now
	default:
		w.index, w.due = nextIndex(w.index, a.Index), now.Add(w.pay(now, news))
	}
}

// nextIndex follows the rules of Consul's documentation and starts again when
// the index goes backwards. A change of an index that no server can have
// reached would be awaited in vain.
func nextIndex(last, got uint64) uint64 {
	if got < last || got > math.MaxInt64 {
		return 0
	}
	return got
}

// pay returns how long to wait until an early answer is paid for.
func (w *watch) pay(now time.Time, news bool) time.Duration {
	cost := noNewsCost
	if news {
		cost = newsCost
	}
	return w.tokens.ReserveN(now, cost).DelayFrom(now)
}

func (r *Registry) note(w *watch, trouble string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w.trouble = trouble
}

func (r *Registry) noteSkipped(w *watch, skipped []string) {
	if slices.Equal(skipped, w.skipped) {
		return
	}
	w.skipped = skipped
	r.skipped.WithLabelValues(w.service).Set(float64(len(skipped)))
	if len(skipped) > 0 {
		r.log.Warn("instances skipped", "service", w.service, "reason", strings.Join(skipped, "; "))
	}
}
