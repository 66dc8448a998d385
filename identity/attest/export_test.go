package attest

// LookOnceAgain has a look only once again for a registration that did not have
// its nonce at once, until undone.
func LookOnceAgain(a *Consul) (undo func()) {
	a.consul.again = again[:1]
	return func() { a.consul.again = again }
}
