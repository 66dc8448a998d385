package credential

import "fmt"

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
func (c *Cache) Held() (tokens, bytes int) { return c.tokens.Held() }

// Attempts is how many hashes of a password may wait or run at once.
func (p *Passwords) Attempts() (slots, queue int) { return cap(p.slots), cap(p.queue) }
