package introspection

// Held is how many good and bad tokens are remembered.
func Held(i *Introspector) (active, inactive int) {
	active, _ = i.active.Held()
	inactive, _ = i.inactive.Held()
	return active, inactive
}
