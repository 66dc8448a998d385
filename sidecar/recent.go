package sidecar

import (
	"slices"
	"sync"
)

// recent remembers what the last versions of one secret stood for, so that it
// can be told which of them Envoy uses. It is safe for concurrent use.
type recent[V any] struct {
	mu       sync.Mutex
	versions []string
	values   []V
}

// maxRecent is far more than Envoy is ever behind.
const maxRecent = 16

// put says that version, the newest from now on, stands for v.
func (r *recent[V]) put(version string, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.versions, version); i >= 0 {
		r.versions = slices.Delete(r.versions, i, i+1)
		r.values = slices.Delete(r.values, i, i+1)
	}
	r.versions = append(r.versions, version)
	r.values = append(r.values, v)
	if n := len(r.versions) - maxRecent; n > 0 {
		r.versions = slices.Delete(r.versions, 0, n)
		r.values = slices.Delete(r.values, 0, n)
	}
}

// oldest returns what the oldest of some versions stands for: the zero value
// if any of them is not remembered. Without versions it is the newest of all.
func (r *recent[V]) oldest(versions []string) (v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := len(r.versions) - 1
	for _, version := range versions {
		at = min(at, slices.Index(r.versions, version))
	}
	if at >= 0 {
		v = r.values[at]
	}
	return v
}
