package sidecar

import (
	"fmt"
	"maps"

	"github.com/chancery-mesh/chancery/internal/xds"
)

// revision is one consistent state of the view: the resources of revisedTypes,
// all of one moment at the control plane. It is immutable.
type revision struct {
	id   string
	sets map[string]set
	// needs are the names of namedTypes that it refers to.
	needs map[string][]string
}

// complete returns the revision that is held, or nil in the midst of a change:
// as long as the sets are not those that the control plane's Revision speaks
// of, or something that they refer to has not been answered.
func (h *held) complete() *revision {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current == nil {
		return nil
	}
	for _, typeURL := range revisedTypes {
		if xds.DigestOf(h.sets[typeURL].versions()).String() != h.current.GetDigests()[typeURL] {
			return nil
		}
	}
	for typeURL, names := range h.needs {
		for _, name := range names {
			_, absent := h.absent[typeURL][name]
			if typeURL == accountsType && !isOfNow(typeURL, name) {
				absent = false // a revision that has them is on its way
			}
			if h.sets[typeURL][name] == nil && !absent {
				return nil
			}
		}
	}
	h.last = newRevision(h.current.GetId(), h.sets, h.needs)
	return h.last
}

// newRevision copies the sets that a revision is made of.
func newRevision(id string, sets map[string]set, needs map[string][]string) *revision {
	rev := &revision{id: id, sets: map[string]set{}, needs: needs}
	for _, typeURL := range revisedTypes {
		rev.sets[typeURL] = maps.Clone(sets[typeURL])
	}
	return rev
}

// snapshot returns rev, and all that it refers to, as last good state.
func (h *held) snapshot(rev *revision) *snapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &snapshot{revision: rev.id}
	for _, typeURL := range revisedTypes {
		s.resources = append(s.resources, rev.sets[typeURL].list()...)
	}
	for _, typeURL := range namedTypes {
		s.resources = append(s.resources, h.sets[typeURL].list()...)
	}
	return s
}

// restore takes over last good state.
func (h *held) restore(s *snapshot) (*revision, error) {
	sets, err := s.sets()
	if err != nil {
		return nil, err
	}
	for typeURL, set := range sets {
		h.apply(typeURL, set.list(), nil)
	}
	return newRevision(s.revision, sets, findNeeds(sets)), nil
}

// sets returns all resources by type.
func (s *snapshot) sets() (map[string]set, error) {
	sets := map[string]set{}
	for _, r := range s.resources {
		if _, err := decode(r); err != nil {
			return nil, err
		}
		if !isKnown(r.TypeURL) {
			return nil, fmt.Errorf("unknown type %q", r.TypeURL)
		}
		if sets[r.TypeURL] == nil {
			sets[r.TypeURL] = set{}
		}
		sets[r.TypeURL][r.Name] = r
	}
	return sets, nil
}
