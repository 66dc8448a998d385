// Package steady tells whether the clock on the wall can be believed, by the
// clock that only counts: what is forgotten since it seems to have ended does
// not come back when the clock does.
package steady

import (
	"sync"
	"time"
)

const (
	// tolerance is how far a clock may be set without being doubted.
	tolerance = 5 * time.Minute
	// settle is how long a clock that jumped must go on evenly to be believed.
	settle = time.Hour
)

// Clock watches the clock on the wall. It is safe for concurrent use.
type Clock struct {
	now     func() time.Time
	started time.Time // with its reading of the clock that counts

	mu sync.Mutex
	// believed is how far the wall was ahead of the count when it was believed
	// last, and seen when it was looked at last.
	believed, seen time.Duration
	// since is when it jumped last, or was first looked at, by the count.
	since time.Duration
}

// New returns a Clock that watches now, which it believes.
func New(now func() time.Time) *Clock {
	c := &Clock{now: now, started: time.Now()}
	c.believed = c.ahead()
	c.seen = c.believed
	return c
}

func (c *Clock) ahead() time.Duration {
	return c.now().Round(0).Sub(c.started.Round(0)) - time.Since(c.started)
}

// Doubt says that the clock is wrong by so much, by what else is known.
func (c *Clock) Doubt(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.believed = c.seen - by
}

// Look returns how far the clock has jumped ahead, or back, and neither came
// back nor gone on evenly for an hour; zero for a clock to believe. Settled
// reports whether it has gone on evenly for an hour in any case. Call it now and
// then.
func (c *Clock) Look() (jump time.Duration, settled bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	counted, ahead := time.Since(c.started), c.ahead()
	if (ahead - c.seen).Abs() > tolerance {
		c.since = counted
	}
	c.seen = ahead
	settled = counted-c.since >= settle
	if settled || (ahead-c.believed).Abs() <= tolerance {
		c.believed = ahead
	}
	return ahead - c.believed, settled
}
