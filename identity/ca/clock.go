package ca

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/chancery-mesh/chancery/internal/steady"
)

// clock tells whether what has ended by the clock may be forgotten. A clock that
// is wrong for a while must not take back revocations for good.
type clock struct {
	*steady.Clock
	log  *slog.Logger
	jump atomic.Int64 // in nanoseconds, when it was looked at last
}

func newClock(cfg Config) *clock {
	return &clock{Clock: steady.New(cfg.Now), log: cfg.Logger}
}

// look is that of [steady.Clock], and loud.
func (c *clock) look() (jump time.Duration, settled bool) {
	jump, settled = c.Look()
	switch was := time.Duration(c.jump.Swap(int64(jump))); {
	case jump != 0 && was == 0:
		c.log.Error("the clock is not where it should be: nothing is forgotten until it is back, or has gone on evenly for an hour",
			"ahead", jump.Round(time.Second))
	case jump == 0 && was != 0:
		c.log.Warn("the clock is believed again", "was_ahead", was.Round(time.Second))
	}
	return jump, settled
}

// ClockJump returns by how much the clock is ahead of where it should be, or
// behind if it is negative; zero if it is believed.
func (ca *CA) ClockJump() time.Duration { return time.Duration(ca.clock.jump.Load()) }

// compareClock doubts a clock by which all that is on disk has ended, or has not
// begun. The control plane may have been away for as long; that shows in an hour.
func (ca *CA) compareClock() {
	newest, longest := ca.certificates.newest()
	for _, i := range ca.state.authorities {
		if i.Since.After(newest) {
			newest = i.Since
		}
	}
	ahead := ca.cfg.Now().Sub(newest)
	if ahead > max(longest, time.Hour) || ahead < -grace {
		ca.clock.Doubt(ahead)
	}
}

// newest returns when something happened last, and the longest life of a
// certificate.
func (cs *certificates) newest() (at time.Time, longest time.Duration) {
	for _, c := range cs.bySerial {
		for _, t := range []time.Time{c.Issued, c.Revoked} {
			if t.After(at) {
				at = t
			}
		}
		longest = max(longest, c.Expires.Sub(c.Issued))
	}
	return at, longest
}
