package controlplane

import (
	"slices"
	"sync/atomic"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// view is what all proxies of one gateway or service see. It has two
// generations: latest, and proven, the last one that a proxy acknowledged
// whole. A proxy that connects while latest is unproven is given proven, so a
// bad one does not spread; only when nobody is there to try latest, it does.
type view struct {
	id     identity.ID
	latest *generation
	// proven is nil until a proxy has acknowledged one.
	proven *generation
	// former are the accounts of now that the one proven before referred to: a
	// proxy may still decide by it.
	former []string
	// newest and settled hold what the streams on latest and on proven see.
	newest, settled sets
	streams         map[*stream]struct{}
	// needs are the names of shared resources that streams may ask for, by
	// type. They are read under the locks of collections.
	needs atomic.Pointer[map[string][]string]
}

// sets are collections of the resources of one view, by type.
type sets map[string]*xds.Collection

func newSets() sets {
	s := sets{revisionType: {}}
	for _, typeURL := range revisedTypes {
		s[typeURL] = &xds.Collection{}
	}
	return s
}

// replace makes the sets hold a generation, the Revision last.
func (s sets) replace(g *generation) {
	for _, typeURL := range append(slices.Clone(revisedTypes), revisionType) {
		s[typeURL].Replace(g.resources[typeURL])
	}
}

// newView returns a view of which an earlier process had a proven generation,
// or nil.
func newView(id identity.ID, proven *generation) *view {
	v := &view{id: id, proven: proven, newest: newSets(), settled: newSets(), streams: map[*stream]struct{}{}}
	v.needs.Store(&map[string][]string{})
	if proven != nil {
		v.settled.replace(proven)
	}
	return v
}

// isProven reports whether a proxy has acknowledged the latest generation.
func (v *view) isProven() bool { return v.proven != nil && v.proven.revision == v.latest.revision }

// set makes g the latest generation.
func (v *view) set(g *generation) {
	v.latest = g
	v.updateNeeds()
	v.newest.replace(g)
	if v.isProven() { // a change was taken back
		v.prove()
	}
}

// relabel makes g, which has the content of latest, take its place.
func (v *view) relabel(g *generation) {
	if v.isProven() {
		v.proven = g
	}
	v.latest = g
}

// prove makes the latest generation the proven one. Streams on the one before
// end; they come back to latest and say what they hold already.
func (v *view) prove() {
	if v.proven != nil && !v.isProven() {
		v.former = unpinned(namesOf(v.proven.accounts))
	}
	v.proven = v.latest
	v.updateNeeds()
	v.settled.replace(v.latest)
	for s := range v.streams {
		if !s.tries {
			s.end(errMoved)
		}
	}
}

// updateNeeds lets streams have what either generation refers to.
func (v *view) updateNeeds() {
	needs := map[string][]string{trustType: {trustName}}
	for _, g := range []*generation{v.latest, v.proven} {
		if g == nil {
			continue
		}
		for typeURL, names := range g.needs {
			needs[typeURL] = append(needs[typeURL], names...)
		}
	}
	needs[accountsType] = append(needs[accountsType], v.former...)
	for typeURL := range needs {
		slices.Sort(needs[typeURL])
		needs[typeURL] = slices.Compact(needs[typeURL])
	}
	v.needs.Store(&needs)
}

// may reports whether streams of the view may see a shared resource.
func (v *view) may(typeURL, name string) bool {
	_, ok := slices.BinarySearch((*v.needs.Load())[typeURL], name)
	return ok
}

// admit takes in a stream, and chooses its generation.
func (v *view) admit(s *stream) {
	s.tries = v.proven == nil || v.isProven() || !v.tried()
	s.sets = v.settled
	if s.tries {
		s.sets = v.newest
	}
	v.streams[s] = struct{}{}
}

// leave forgets a stream. If nobody is left to try the latest generation,
// another one shall.
func (v *view) leave(s *stream) {
	delete(v.streams, s)
	if v.latest == nil || v.isProven() || v.tried() {
		return
	}
	for other := range v.streams {
		other.end(errMoved)
		return
	}
}

// tried reports whether any stream has the latest generation.
func (v *view) tried() bool {
	for s := range v.streams {
		if s.tries {
			return true
		}
	}
	return false
}
