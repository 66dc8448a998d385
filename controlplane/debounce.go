package controlplane

import (
	"context"
	"time"
)

const (
	// pushLead collects what changes together: one event of the registry wakes
	// several watches.
	pushLead = 10 * time.Millisecond
	// pushGap is the least time between two pushes, and so the most that a
	// change waits.
	pushGap = 50 * time.Millisecond
)

// debounce calls push after each kick: pushLead after one that comes out of
// silence, and so that pushes are pushGap apart when kicks keep coming. Kicks
// that come while one waits are one. It returns when ctx ends.
func debounce(ctx context.Context, kicks <-chan struct{}, push func()) {
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-kicks:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(pushLead, pushGap-time.Since(last))):
		}
		select {
		case <-kicks: // this push serves it
		default:
		}
		last = time.Now()
		push()
	}
}

// kick makes sure that the receiver looks again after now. The channel has
// room for one.
func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// sleep waits for d, or for the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
