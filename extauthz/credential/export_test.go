package credential

import (
	"fmt"
	"time"
)

// OnHash has f called in place of each computation of users' hashes, with what it
// costs.
func (u *Users) OnHash(f func(cost string, compute func() bool) bool) {
	for _, known := range u.byName {
		known.hash = observed{known.hash, f}
	}
	for i := range u.dummies {
		u.dummies[i] = observed{u.dummies[i], f}
	}
}

type observed struct {
	passwordHash
	f func(cost string, compute func() bool) bool
}

func (o observed) matches(password string) bool {
	return o.f(cost(o.passwordHash), func() bool { return o.passwordHash.matches(password) })
}

func cost(h passwordHash) string {
	switch h := h.(type) {
	case never:
		return cost(h.passwordHash)
	case *argon2Hash:
		return fmt.Sprintf("argon2id %+v, %d", h.argon2Params, len(h.sum))
	case *bcryptHash:
		return "bcrypt " + string(h.hash[4:6])
	}
	return "none"
}

// Held is how many tokens c holds, and of how many bytes.
func (c *Cache) Held() (tokens, bytes int) {
	for i := range c.tokens.buckets {
		for j := range c.tokens.buckets[i] {
			if e := c.tokens.buckets[i][j].Load(); e != nil {
				tokens++
				bytes += e.size
			}
		}
	}
	return tokens, bytes
}

// Attempts is how many hashes of a password may wait or run at once.
func (p *Passwords) Attempts() (slots, queue int) { return cap(p.slots), cap(p.queue) }

// Throttle as it is inside.
type Throttle struct{ throttle }

// NewThrottle returns one.
func NewThrottle(burst int, interval time.Duration) *Throttle {
	return &Throttle{newThrottle(burst, interval)}
}

// Take, Allows and GiveBack are the throttle's own.
func (t *Throttle) Take(key uint64, now time.Time) bool { return t.take(key, now) }

// Allows is the throttle's own.
func (t *Throttle) Allows(key uint64, now time.Time) bool { return t.allows(key, now) }

// GiveBack is the throttle's own.
func (t *Throttle) GiveBack(key uint64) { t.giveBack(key) }
