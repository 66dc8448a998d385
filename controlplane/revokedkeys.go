package controlplane

import (
	"maps"
	"time"
)

// maxRevokedKeys bounds the revoked keys that are remembered, of all gateways.
const maxRevokedKeys = 10_000

// revokedKeys are the ids of Passport keys that must not be endorsed again, with
// another certificate, until when they would have ended.
type revokedKeys map[string]time.Time

// add adds a key. If there are too many, the one that ends first goes.
func (r revokedKeys) add(id string, until time.Time) {
	if len(r) >= maxRevokedKeys {
		first, end := id, until
		for other, at := range r {
			if at.Before(end) {
				first, end = other, at
			}
		}
		if first == id {
			return
		}
		delete(r, first)
	}
	r[id] = until
}

// expire drops what has ended, and reports whether anything has.
func (r revokedKeys) expire(now time.Time) bool {
	before := len(r)
	maps.DeleteFunc(r, func(_ string, until time.Time) bool { return now.After(until) })
	return len(r) < before
}
