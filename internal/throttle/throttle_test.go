package throttle_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/internal/throttle"
)

var now = time.Unix(1_800_000_000, 0)

func TestThrottle(t *testing.T) {
	t.Parallel()
	th := throttle.New(3, time.Second)
	take := func(key uint64, after time.Duration) bool { return th.Take(key, now.Add(after)) }
	for i := range 3 {
		if !take(1, 0) {
			t.Errorf("attempt %d", i)
		}
	}
	switch {
	case take(1, 0) || th.Allows(1, now):
		t.Error("a fourth at once")
	case !take(2, 0):
		t.Error("another key")
	case take(1, 999*time.Millisecond):
		t.Error("too early")
	case !th.Allows(1, now.Add(time.Second)) || !take(1, time.Second):
		t.Error("after a second")
	case take(1, time.Second):
		t.Error("two after a second")
	}
	if th.GiveBack(1); !take(1, time.Second) {
		t.Error("given back")
	}
	for range 3 {
		if !take(1, time.Hour) {
			t.Error("an hour later")
		}
	}
	if take(1, time.Hour) {
		t.Error("the hour was saved up")
	}
	if !take(1, -time.Hour) {
		t.Error("after the clock was set back")
	}
	var wg sync.WaitGroup
	var passed atomic.Int32
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				if take(3, 0) {
					passed.Add(1)
				}
			}
		})
	}
	if wg.Wait(); passed.Load() != 3 {
		t.Errorf("%d passed at once", passed.Load())
	}
}
