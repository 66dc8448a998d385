package sidecar

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff is the growing, jittered pause between attempts at one thing.
type backoff struct {
	min, max time.Duration
	next     time.Duration
}

// reset makes the next pause the shortest again.
func (b *backoff) reset() { b.next = 0 }

// wait pauses, longer each time, and reports whether ctx still lives.
func (b *backoff) wait(ctx context.Context) bool { return sleep(ctx, b.grow()) }

// grow returns the next pause, which is longer each time.
func (b *backoff) grow() time.Duration {
	b.next = min(max(2*b.next, b.min), b.max)
	return jitter(b.next, 0.2)
}

// jitter returns d, more or less a share of it.
func jitter(d time.Duration, share float64) time.Duration {
	return time.Duration(float64(d) * (1 + share*(2*rand.Float64()-1))) //nolint:gosec // spreads load, guards nothing
}

// sleep pauses and reports whether ctx still lives.
func sleep(ctx context.Context, d time.Duration) bool {
	if ctx.Err() != nil {
		return false
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
