package consul

import (
	"context"
	"slices"
	"time"

	"github.com/chancery-mesh/chancery/discovery"
)

const (
	// cycle is how long a shared worker waits on all its services together: with
	// the time that questions take, each is asked about once a second.
	cycle = 800 * time.Millisecond
	// minWait keeps a worker with a great many services from hurrying.
	minWait = 10 * time.Millisecond
)

// worker asks about a share of the services, one question at a time: there are
// as many workers as connections. A service that has a worker for itself is
// waited on for minutes, and a change of it is seen at once; of a larger share
// each is waited on for its part of a second.
type worker struct {
	registry *Registry

	// Guarded by Registry.mu.
	share []*watch
	// interrupt makes a running worker look at its share again.
	interrupt context.CancelFunc
}

func (w *worker) run(ctx context.Context, notify func(discovery.Update)) {
	for ctx.Err() == nil {
		round, share := w.begin(ctx)
		w.serve(round, share, notify)
	}
}

// begin returns the share, and a context that ends when it changes.
func (w *worker) begin(ctx context.Context) (context.Context, []*watch) {
	w.registry.mu.Lock()
	defer w.registry.mu.Unlock()
	round, cancel := context.WithCancel(ctx)
	w.interrupt = cancel
	return round, slices.Clone(w.share)
}

func (w *worker) serve(round context.Context, share []*watch, notify func(discovery.Update)) {
	for round.Err() == nil {
		if len(share) == 0 {
			<-round.Done()
			return
		}
		next := slices.MinFunc(share, func(a, b *watch) int { return a.due.Compare(b.due) })
		if sleep(round, time.Until(next.due)) {
			w.registry.ask(round, next, w.registry.wait(len(share)), notify)
		}
	}
}

// wait returns how long to wait on one of n services.
func (r *Registry) wait(n int) time.Duration {
	if n == 1 {
		return r.maxWait
	}
	return min(r.maxWait, max(minWait, cycle/time.Duration(n)))
}

// sleep reports whether it could sleep to its end.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// set changes the share; Registry.mu is held.
func (w *worker) set(share []*watch) {
	w.share = share
	if w.interrupt != nil {
		w.interrupt()
	}
}

func (w *worker) drop(gone *watch) {
	w.set(slices.DeleteFunc(w.share, func(have *watch) bool { return have == gone }))
}

// assign makes a worker watch a service.
func (r *Registry) assign(service string, w *worker) {
	added := newWatch(service)
	added.worker = w
	r.watches[service] = added
	w.set(append(w.share, added))
}

// balance moves services until no worker has two more than another. A moved one
// is watched anew, since a question about the old one may still be under way.
func (r *Registry) balance() {
	for {
		least, most := r.leastAndMost()
		if len(most.share)-len(least.share) < 2 {
			return
		}
		moved := most.share[len(most.share)-1]
		most.drop(moved)
		r.assign(moved.service, least)
	}
}

func (r *Registry) leastAndMost() (least, most *worker) {
	size := func(a, b *worker) int { return len(a.share) - len(b.share) }
	return slices.MinFunc(r.workers, size), slices.MaxFunc(r.workers, size)
}
