package steady_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-mesh/chancery/internal/steady"
)

func TestClock(t *testing.T) {
	t.Parallel()
	type step struct {
		after, set time.Duration // how long after the step before, and by how much it is set
		jump       time.Duration
		settled    bool
	}
	const day = 24 * time.Hour
	for name, steps := range map[string][]step{
		"even":           {{time.Minute, 0, 0, false}, {time.Hour, 0, 0, true}, {10 * day, 0, 0, true}},
		"a little off":   {{2 * time.Hour, time.Minute, 0, true}, {time.Minute, -2 * time.Minute, 0, true}},
		"drifts":         {{time.Hour, 4 * time.Minute, 0, true}, {time.Hour, 4 * time.Minute, 0, true}, {time.Hour, 4 * time.Minute, 0, true}},
		"ahead and back": {{2 * time.Hour, 2 * day, 2 * day, false}, {time.Minute, 0, 2 * day, false}, {time.Minute, -2 * day, 0, false}, {time.Hour, 0, 0, true}},
		"ahead for good": {{2 * time.Hour, 2 * day, 2 * day, false}, {59 * time.Minute, 0, 2 * day, false}, {time.Minute, 0, 0, true}},
		"back":           {{2 * time.Hour, -day, -day, false}, {time.Hour, 0, 0, true}},
		"again and again": {
			{2 * time.Hour, day, day, false}, {59 * time.Minute, day, 2 * day, false}, {59 * time.Minute, 0, 2 * day, false}, {time.Minute, 0, 0, true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var set time.Duration
				c := steady.New(func() time.Time { return time.Now().Add(set) })
				for n, s := range steps {
					time.Sleep(s.after)
					set += s.set
					if jump, settled := c.Look(); jump != s.jump || settled != s.settled {
						t.Errorf("step %d: jump %v, settled %v; want %v, %v", n, jump, settled, s.jump, s.settled)
					}
				}
			})
		})
	}
}

func TestDoubt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := steady.New(time.Now)
		c.Doubt(48 * time.Hour)
		time.Sleep(59 * time.Minute)
		if jump, _ := c.Look(); jump != 48*time.Hour {
			t.Errorf("jump is %v", jump)
		}
		time.Sleep(time.Minute)
		if jump, settled := c.Look(); jump != 0 || !settled {
			t.Errorf("after an hour the jump is %v", jump)
		}
	})
}
