package xds

import (
	"maps"
	"slices"
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
)

// Collection is the set of resources of one type that some streams see, and
// the watches they have open on it. It is safe for concurrent use; the zero
// value is empty and ready.
type Collection struct {
	mu        sync.Mutex
	resources map[string]*Resource
	watches   map[*watch]struct{}
}

// watch is one stream's open question: it holds what the collection holds, as
// far as it subscribed, and waits for a difference.
type watch struct {
	request *cache.DeltaRequest
	sub     cache.Subscription
	allow   func(name string) bool
	out     chan cache.DeltaResponse
}

// Apply puts resources and removes names, and answers the watches that this
// concerns. Resources whose version is already held change nothing.
func (c *Collection) Apply(put []*Resource, remove ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apply(put, remove)
}

// Replace makes the collection hold exactly these resources.
func (c *Collection) Replace(all []*Resource) {
	c.mu.Lock()
	defer c.mu.Unlock()
	gone := maps.Clone(c.resources)
	for _, r := range all {
		delete(gone, r.Name)
	}
	c.apply(all, slices.Collect(maps.Keys(gone)))
}

// Recheck answers the watches that may see some names now, or no longer may,
// because what their allow function says of them changed.
func (c *Collection) Recheck(names ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notify(names)
}

func (c *Collection) apply(put []*Resource, remove []string) {
	if c.resources == nil {
		c.resources = map[string]*Resource{}
	}
	var changed []string
	for _, r := range put {
		if old := c.resources[r.Name]; old == nil || old.Version != r.Version {
			c.resources[r.Name] = r
			changed = append(changed, r.Name)
		}
	}
	for _, name := range remove {
		if _, ok := c.resources[name]; ok {
			delete(c.resources, name)
			changed = append(changed, name)
		}
	}
	c.notify(changed)
}

// Versions returns the held versions by name.
func (c *Collection) Versions() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	versions := make(map[string]string, len(c.resources))
	for name, r := range c.resources {
		versions[name] = r.Version
	}
	return versions
}

// Resources returns the held resources by name.
func (c *Collection) Resources() map[string]*Resource {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.resources)
}

// Watch answers a request with what its stream lacks, at once or as soon as
// something changes. The first request of a type is always answered, if with
// nothing: Envoy's start waits for it. Names that allow refuses do not exist for the stream;
// a nil allow refuses none. The returned function ends the watch.
func (c *Collection) Watch(req *cache.DeltaRequest, sub cache.Subscription, allow func(name string) bool, out chan cache.DeltaResponse) (cancel func()) {
	w := &watch{request: req, sub: sub, allow: allow, out: out}
	c.mu.Lock()
	defer c.mu.Unlock()
	first := req.GetResponseNonce() == ""
	if resp := c.catchUp(w); first || !isEmpty(resp) {
		w.answer(resp)
		return func() {}
	}
	if c.watches == nil {
		c.watches = map[*watch]struct{}{}
	}
	c.watches[w] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watches, w)
	}
}

// notify answers the watches that see any of the changed names. Watches hold
// everything else already, so only these names are looked at.
func (c *Collection) notify(changed []string) {
	for w := range c.watches {
		if resp := c.difference(w, changed, nil); !isEmpty(resp) {
			delete(c.watches, w)
			w.answer(resp)
		}
	}
}

// catchUp compares everything the stream may see with everything it holds.
func (c *Collection) catchUp(w *watch) *discoveryv3.DeltaDiscoveryResponse {
	names := map[string]struct{}{}
	for name := range w.sub.ReturnedResources() {
		names[name] = struct{}{}
	}
	for name := range w.sub.SubscribedResources() {
		names[name] = struct{}{}
	}
	if w.sub.IsWildcard() {
		for name := range c.resources {
			names[name] = struct{}{}
		}
	}
	return c.difference(w, slices.Collect(maps.Keys(names)), w.asked())
}

// difference returns what the stream must be told about some names. Names in
// asked are sent although the stream holds them.
func (c *Collection) difference(w *watch, names []string, asked map[string]bool) *discoveryv3.DeltaDiscoveryResponse {
	resp := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: w.request.GetTypeUrl()}
	for _, name := range names {
		allowed := w.allow == nil || w.allow(name)
		_, explicit := w.sub.SubscribedResources()[name]
		version, held := w.sub.ReturnedResources()[name]
		if !explicit && !held && (!w.sub.IsWildcard() || !allowed) {
			continue
		}
		r := c.resources[name]
		switch {
		case r != nil && allowed:
			if version != r.Version || asked[name] {
				resp.Resources = append(resp.Resources, r.Delta())
			}
		case !held || version != absent || asked[name]:
			resp.RemovedResources = append(resp.RemovedResources, name)
		}
	}
	return resp
}

func isEmpty(resp *discoveryv3.DeltaDiscoveryResponse) bool {
	return len(resp.GetResources()) == 0 && len(resp.GetRemovedResources()) == 0
}

// absent is the version of a name that the stream was told does not exist.
const absent = ""

// asked returns the names that the request subscribes to by name and whose
// resource the client does not say it holds: these are sent although nothing
// changed, as the protocol demands (Envoy's xDS documentation, "Subscribing to
// resources").
func (w *watch) asked() map[string]bool {
	names := w.request.GetResourceNamesSubscribe()
	asked := make(map[string]bool, len(names))
	for _, name := range names {
		if _, held := w.request.GetInitialResourceVersions()[name]; !held {
			asked[name] = true
		}
	}
	return asked
}

// answer sends resp and ends the watch: the stream's next request, which
// acknowledges it, opens another.
func (w *watch) answer(resp *discoveryv3.DeltaDiscoveryResponse) {
	held := maps.Clone(w.sub.ReturnedResources())
	for _, r := range resp.GetResources() {
		held[r.GetName()] = r.GetVersion()
	}
	for _, name := range resp.GetRemovedResources() {
		delete(held, name)
		if _, explicit := w.sub.SubscribedResources()[name]; explicit {
			held[name] = absent
		}
	}
	w.out <- &cache.DeltaPassthroughResponse{
		DeltaRequest:           w.request,
		NextVersionMap:         held,
		DeltaDiscoveryResponse: resp,
	}
}
