package controlplane

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/mesh"
)

// views holds one view for each gateway and each service.
type views struct {
	// shared are the collections that all views see a part of, by type.
	shared map[string]*xds.Collection

	mu   sync.Mutex
	byID map[identity.ID]*view
	// earlier are the generations that were proven in an earlier process; nil
	// once the views have taken theirs.
	earlier map[identity.ID]*generation
	// ended is why there are no streams any more.
	ended error
}

func newViews(shared map[string]*xds.Collection) *views {
	return &views{shared: shared, byID: map[identity.ID]*view{}}
}

// plan makes the generations of workloads from the content that is each one's.
// Those of before are kept where nothing changed that they are made of.
func (vs *views) plan(ids []identity.ID, contentOf func(identity.ID) (*content, error)) (map[identity.ID]*generation, error) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	next := map[identity.ID]*generation{}
	var errs []error
	for _, id := range ids {
		c, err := contentOf(id)
		switch v := vs.byID[id]; {
		case err != nil:
		case v != nil && v.latest.madeFrom(c, id):
			next[id] = v.latest.with(c)
		default:
			next[id], err = newGeneration(c, id)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("view of %s: %w", id, err))
		}
	}
	return next, errors.Join(errs...)
}

// set makes exactly these views be there.
func (vs *views) set(next map[identity.ID]*generation) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	for id, v := range vs.byID {
		if next[id] == nil {
			delete(vs.byID, id)
			for s := range v.streams {
				s.end(errRemoved)
			}
		}
	}
	for id, g := range next {
		v := vs.byID[id]
		if v == nil {
			v = newView(id, vs.earlier[id])
			vs.byID[id] = v
		}
		if v.latest != nil && v.latest.revision == g.revision {
			v.relabel(g)
			continue
		}
		before := *v.needs.Load()
		v.set(g)
		vs.recheck(before, *v.needs.Load())
	}
	vs.earlier = nil
}

// recheck makes streams look again at the shared resources that their view may
// see now, or no longer may.
func (vs *views) recheck(before, after map[string][]string) {
	for typeURL, collection := range vs.shared {
		var names []string
		for _, name := range slices.Concat(before[typeURL], after[typeURL]) {
			if slices.Contains(before[typeURL], name) != slices.Contains(after[typeURL], name) {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			collection.Recheck(names...)
		}
	}
}

// open admits a stream of id.
func (vs *views) open(id identity.ID, s *stream) error {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	v := vs.byID[id]
	if v == nil || vs.ended != nil {
		return cmp.Or(vs.ended, errRemoved)
	}
	s.view = v
	v.admit(s)
	return nil
}

// close forgets a stream.
func (vs *views) close(s *stream) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	s.view.leave(s)
}

// end ends all streams, for good.
func (vs *views) end(why error) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	vs.ended = why
	for _, v := range vs.byID {
		for s := range v.streams {
			s.end(why)
		}
	}
}

// has reports whether there is a view of id.
func (vs *views) has(id identity.ID) bool {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	return vs.byID[id] != nil
}

// referring returns whose views refer to a shared resource.
func (vs *views) referring(typeURL, name string) []identity.ID {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	var ids []identity.ID
	for id, v := range vs.byID {
		if v.may(typeURL, name) {
			ids = append(ids, id)
		}
	}
	return ids
}

// acknowledged notes that a proxy took a revision whole.
// It reports whether that was news.
func (vs *views) acknowledged(id identity.ID, revision string) bool {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	v := vs.byID[id]
	if v == nil || v.latest.revision != revision || v.isProven() {
		return false
	}
	before := *v.needs.Load()
	v.prove()
	vs.recheck(before, *v.needs.Load())
	return true
}

// latest returns the latest generation of id, or nil.
func (vs *views) latest(id identity.ID) *generation {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	if v := vs.byID[id]; v != nil {
		return v.latest
	}
	return nil
}

// proven returns what the proven generation of each view that has one was made
// from.
func (vs *views) proven() map[identity.ID]*content {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	proven := map[identity.ID]*content{}
	for id, v := range vs.byID {
		if v.proven != nil {
			proven[id] = v.proven.content
		}
	}
	return proven
}

// services returns the services that any view sends to, of either generation,
// sorted.
func (vs *views) services() []string {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	var names []string
	for _, v := range vs.byID {
		names = append(names, (*v.needs.Load())[resource.EndpointType]...)
	}
	for _, g := range vs.earlier {
		names = append(names, g.needs[resource.EndpointType]...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// accounts returns those that any view refers to, of either generation.
func (vs *views) accounts() []*xds.Resource {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	byName := map[string]*xds.Resource{}
	note := func(generations ...*generation) {
		for _, g := range generations {
			if g != nil {
				for _, r := range g.accounts {
					byName[r.Name] = r
				}
			}
		}
	}
	for _, v := range vs.byID {
		note(v.latest, v.proven)
	}
	note(slices.Collect(maps.Values(vs.earlier))...)
	return slices.Collect(maps.Values(byName))
}

// status tells of each view, sorted by name.
func (vs *views) status() []ViewStatus {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	out := make([]ViewStatus, 0, len(vs.byID))
	for _, id := range slices.SortedFunc(maps.Keys(vs.byID), compareIDs) {
		v := vs.byID[id]
		s := ViewStatus{Name: id.String(), Revision: v.latest.revision, Streams: len(v.streams)}
		if v.proven != nil {
			s.Proven = v.proven.revision
		}
		out = append(out, s)
	}
	return out
}

// workloads returns who has a view.
func workloads(m *mesh.Mesh) []identity.ID {
	var ids []identity.ID
	for _, g := range m.Gateways {
		ids = append(ids, gatewayID(g.Name))
	}
	for _, s := range m.Services {
		ids = append(ids, serviceID(s.Name))
	}
	return ids
}

func compareIDs(a, b identity.ID) int {
	return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.Name, b.Name))
}

func compareDocuments(a, b mesh.DocumentID) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
}
