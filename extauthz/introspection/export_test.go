package introspection

import "time"

// SetTimeout gives providers more time than Envoy would, or less.
func SetTimeout(i *Introspector, d time.Duration) { i.timeout = d }

// Desks is how many providers are remembered.
func Desks(i *Introspector) (n int) {
	i.desks.Range(func(any, any) bool { n++; return true })
	return n
}

// Held is how many good and bad tokens are remembered.
func Held(i *Introspector) (active, inactive int) {
	active, _ = i.active.Held()
	inactive, _ = i.inactive.Held()
	return active, inactive
}
