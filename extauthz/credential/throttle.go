package credential

import (
	"sync/atomic"
	"time"
)

// throttle lets a few attempts of each key pass at once, and then one in each
// interval. Its memory is fixed: keys share slots, by a hash that nobody else
// knows, so a flood of keys pushes none out. That two meet in a slot costs an
// attempt now and then, and lets none through.
type throttle struct {
	// slots are theoretical arrival times (GCRA), in nanoseconds: how far one is
	// ahead of now is how many attempts were made.
	slots    []atomic.Int64
	interval int64
	burst    int64
}

const throttleSlots = 1 << 16

func newThrottle(burst int, interval time.Duration) throttle {
	return throttle{make([]atomic.Int64, throttleSlots), interval.Nanoseconds(), int64(burst)}
}

// allows reports whether take would.
func (t *throttle) allows(key uint64, now time.Time) bool {
	_, ok := t.next(t.slots[key%throttleSlots].Load(), now)
	return ok
}

// take counts an attempt, and reports whether it may be made.
func (t *throttle) take(key uint64, now time.Time) bool {
	slot := &t.slots[key%throttleSlots]
	for {
		old := slot.Load()
		next, ok := t.next(old, now)
		if !ok || slot.CompareAndSwap(old, next) {
			return ok
		}
	}
}

func (t *throttle) next(old int64, now time.Time) (next int64, ok bool) {
	begin, full := now.UnixNano(), t.burst*t.interval
	// What is further ahead was there before the clock was set back.
	if old < begin || old > begin+2*full {
		old = begin
	}
	next = old + t.interval
	return next, next-begin <= full
}

// giveBack uncounts an attempt.
func (t *throttle) giveBack(key uint64) { t.slots[key%throttleSlots].Add(-t.interval) }
