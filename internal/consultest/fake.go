package consultest

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/chancery-mesh/chancery/discovery"
)

// Fake is a Consul server that knows /v1/health/service, with blocking queries
// on the index of each service. It runs in memory, inside a synctest bubble
// too.
type Fake struct {
	config *api.Config

	mu       sync.Mutex
	changed  chan struct{} // closed at the next change
	index    uint64
	services map[string]*service
	wrap     func(http.Handler) http.Handler
	conns    int
	dialled  int
}

type service struct {
	index   uint64
	entries []*api.ServiceEntry
}

// NewFake returns a fake that serves until the test ends.
func NewFake(t testing.TB) *Fake {
	t.Helper()
	f := &Fake{changed: make(chan struct{}), index: 1, services: map[string]*service{}}
	listener := newPipeListener()
	server := &http.Server{Handler: f, ConnState: f.count}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	transport := &http.Transport{DialContext: listener.Dial}
	f.config = &api.Config{Address: "consul.test", Scheme: "http", Transport: transport}
	return f
}

// Config returns how to reach the fake.
func (f *Fake) Config() *api.Config { return f.config }

// Set makes these the instances of a service.
func (f *Fake) Set(_ testing.TB, name string, instances ...discovery.Instance) {
	entries := make([]*api.ServiceEntry, len(instances))
	for n, i := range instances {
		entries[n] = Entry(name, i)
	}
	f.SetEntries(name, entries...)
}

// SetEntries makes these the entries of a service.
func (f *Fake) SetEntries(name string, entries ...*api.ServiceEntry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.index++
	f.services[name] = &service{index: f.index, entries: entries}
	f.wake()
}

// SetIndex makes index the present one, of every service too: a server that was
// restored from another state.
func (f *Fake) SetIndex(index uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.index = index
	for _, s := range f.services {
		s.index = index
	}
	f.wake()
}

// Break puts what wrap returns before the fake, for all queries to come; those
// under way return as after a change. Nil mends it.
func (f *Fake) Break(wrap func(healthy http.Handler) http.Handler) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wrap = wrap
	for _, s := range f.services {
		f.index++
		s.index = f.index
	}
	f.wake()
}

// Connections returns how many are open.
func (f *Fake) Connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conns
}

// Dialled returns how many were ever opened.
func (f *Fake) Dialled() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dialled
}

// wake ends all waits; f.mu is held.
func (f *Fake) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// count implements http.Server.ConnState.
func (f *Fake) count(_ net.Conn, state http.ConnState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch state {
	case http.StateNew:
		f.conns++
		f.dialled++
	case http.StateClosed:
		f.conns--
	}
}

// ServeHTTP implements http.Handler.
func (f *Fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	wrap := f.wrap
	f.mu.Unlock()
	var h http.Handler = http.HandlerFunc(f.health)
	if wrap != nil {
		h = wrap(h)
	}
	h.ServeHTTP(w, r)
}

func (f *Fake) health(w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutPrefix(r.URL.Path, "/v1/health/service/")
	if !ok {
		http.NotFound(w, r)
		return
	}
	query := r.URL.Query()
	s := f.await(r.Context(), name, query.Get("index"), query.Get("wait"))
	h := w.Header()
	h.Set("X-Consul-Index", strconv.FormatUint(s.index, 10))
	h.Set("X-Consul-LastContact", "0")
	// As the real one, which streams then and knows no leader.
	streaming := query.Get("index") != "" && query.Get("near") == ""
	h.Set("X-Consul-KnownLeader", strconv.FormatBool(!streaming))
	entries := s.entries
	if entries == nil {
		entries = []*api.ServiceEntry{}
	}
	json.NewEncoder(w).Encode(entries)
}

// await returns a service when its index is above the given one, or after the
// wait.
func (f *Fake) await(ctx context.Context, name, index, wait string) service {
	min, _ := strconv.ParseUint(index, 10, 64)
	d, err := time.ParseDuration(wait)
	if err != nil {
		d = 5 * time.Minute
	}
	timeout := time.After(d)
	for {
		s, changed := f.get(name)
		if min == 0 || s.index > min {
			return s
		}
		select {
		case <-changed:
		case <-timeout:
			return s
		case <-ctx.Done():
			return s
		}
	}
}

func (f *Fake) get(name string) (service, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.services[name]; s != nil {
		return *s, f.changed
	}
	return service{index: 1}, f.changed
}
