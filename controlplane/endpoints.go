package controlplane

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-mesh/chancery/discovery"
	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/mesh"
)

// endpoints keeps where the used services run, one resource each, shared by
// all views. A change of one instance touches one resource. Until the registry
// speaks of a service, that is where an earlier process knew it to run: nothing
// known is not the same as nothing there.
type endpoints struct {
	collection xds.Collection
	file       *stateFile
	log        *slog.Logger
	pushes     prometheus.Counter
	kicks      chan struct{}

	mu       sync.Mutex
	services map[string]*serviceEndpoints
	dirty    map[string]struct{}
	// earlier is what an earlier process knew; nil once the services that are
	// used have taken theirs.
	earlier map[string][]discovery.Instance
}

// serviceEndpoints is what is known of one used service.
type serviceEndpoints struct {
	// sidecars says that instances are reached at theirs.
	sidecars bool
	// update is the zero value as long as nothing is known.
	update discovery.Update
}

// unheard is why the endpoints of an earlier process are served.
const unheard = "the registry has not spoken of it since the control plane started"

func newEndpoints(path string, log *slog.Logger, pushes prometheus.Counter) *endpoints {
	e := &endpoints{
		log:      log,
		pushes:   pushes,
		kicks:    make(chan struct{}, 1),
		services: map[string]*serviceEndpoints{},
		dirty:    map[string]struct{}{},
	}
	e.file = newStateFile(path, log, e.known)
	if err := readState(path, &e.earlier); err != nil {
		log.Error("endpoints of an earlier process not used", "err", err)
	}
	return e
}

// known returns the instances of each service of which something is known.
func (e *endpoints) known() (any, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	known := map[string][]discovery.Instance{}
	for name, s := range e.services {
		if s.update.Service != "" {
			known[name] = s.update.Instances
		}
	}
	return known, nil
}

// use makes exactly these services known. New ones are there, if empty, when it
// returns: whoever hears of a service may ask for its endpoints. One that is
// not in m, which may be nil, is reached as before.
func (e *endpoints) use(names []string, m *mesh.Mesh) {
	e.mu.Lock()
	defer e.mu.Unlock()
	used := map[string]*serviceEndpoints{}
	for _, name := range names {
		s := e.services[name]
		if s == nil {
			s = &serviceEndpoints{sidecars: true}
			if instances, ok := e.earlier[name]; ok {
				s.update = discovery.Update{Service: name, Instances: instances, Held: true, Reason: unheard}
			}
			e.dirty[name] = struct{}{}
		}
		if sidecars := hasSidecar(m, name, s.sidecars); sidecars != s.sidecars {
			s.sidecars = sidecars
			e.dirty[name] = struct{}{}
		}
		used[name] = s
	}
	for name := range e.services {
		if used[name] == nil {
			e.dirty[name] = struct{}{}
		}
	}
	e.services, e.earlier = used, nil
	e.flush()
}

func hasSidecar(m *mesh.Mesh, name string, otherwise bool) bool {
	if m == nil || m.Service(name) == nil {
		return otherwise
	}
	return m.Service(name).HasSidecar()
}

// notify takes what the registry says of one service.
func (e *endpoints) notify(u discovery.Update) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.services[u.Service]
	if s == nil {
		return // no longer used; the registry does not know yet
	}
	s.update = u
	e.dirty[u.Service] = struct{}{}
	kick(e.kicks)
	e.file.changed()
}

// run pushes changes until ctx ends.
func (e *endpoints) run(ctx context.Context) {
	debounce(ctx, e.kicks, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.flush()
	})
}

// flush puts what is dirty into the collection. The caller holds the lock.
func (e *endpoints) flush() {
	if len(e.dirty) == 0 {
		return
	}
	var put []*xds.Resource
	var remove []string
	for name := range e.dirty {
		s := e.services[name]
		if s == nil {
			remove = append(remove, envoy.EndpointsName(name))
			continue
		}
		r, err := xds.New(envoy.EndpointsName(name), envoy.Endpoints(name, s.sidecars, s.update.Instances))
		if err != nil {
			e.log.Error("endpoints not encoded", "service", name, "err", err)
			continue
		}
		put = append(put, r)
	}
	clear(e.dirty)
	e.collection.Apply(put, remove...)
	e.pushes.Inc()
}

// status tells of each used service, sorted by name.
func (e *endpoints) status() []ServiceStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []ServiceStatus
	for _, name := range slices.Sorted(maps.Keys(e.services)) {
		u := e.services[name].update
		out = append(out, ServiceStatus{Name: name, Instances: len(u.Instances), Held: u.Held, Reason: u.Reason})
	}
	return out
}

// instances tells of each instance of each used service, sorted. m may be nil.
func (e *endpoints) instances(m *mesh.Mesh) []InstanceStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []InstanceStatus{}
	for _, name := range slices.Sorted(maps.Keys(e.services)) {
		mtls := m != nil && m.Service(name) != nil && m.Service(name).MTLS != mesh.MTLSOff
		for _, i := range e.services[name].update.Instances {
			s := InstanceStatus{Service: name, ID: i.ID, Address: i.Address.String(), MTLS: mtls}
			if i.Mesh.IsValid() {
				s.Mesh = i.Mesh.String()
			}
			out = append(out, s)
		}
	}
	return out
}
