// Package file is the embedded registry: services and their instances as
// operators write them down, for demos, tests and meshes without Consul.
//
// A file, or every *.yaml and *.yml file of a directory, says
//
//	services:
//	  orders:
//	    - address: 10.0.0.5:8080   # where the service listens
//	      mesh: 10.0.0.5:21001     # where its sidecar listens; optional
//	      id: orders-1             # default: the address
//	      weight: 10               # 1 to 65535; default 1
//	  payments: []                 # known, but nowhere
//
// Addresses are IP addresses with a port. A service may be spread over files;
// its instance IDs may not repeat. Decoding is strict, and every fault is
// reported at once as file:line:column.
//
// Files are read again when they change. While they are at fault the last good
// state stays; every service is then reported as held, and the log and the
// metric chancery_discovery_file_broken tell. An empty file is a fault, since
// it may be one that is just being written: no services are written
// "services: {}". What operators write is believed: the rule for shrunken
// answers ([discovery.Keeper]) is for registries that can err.
package file

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-mesh/chancery/discovery"
)

// settle is how long after a change the files are read: editors write in steps.
const settle = 20 * time.Millisecond

const reasonBroken = "the registry's files are at fault"

// Config of a [Registry].
type Config struct {
	// Path of a file or a directory; required. What holds it must exist.
	Path string
	// Networks is where instances may be; see [discovery.Networks].
	Networks discovery.Networks
	// Logger hears of changes and faults; default none.
	Logger *slog.Logger
	// Registerer of the metrics; default none.
	Registerer prometheus.Registerer
}

// Registry is a [discovery.Registry] of files.
type Registry struct {
	config Config
	log    *slog.Logger
	broken prometheus.Gauge
	// wake tells Run that wanted changed.
	wake chan struct{}

	mu       sync.Mutex
	wanted   []string
	reported map[string]discovery.Update
	state    state
}

// state is what the files say: the last good services, and what is wrong since.
type state struct {
	services map[string][]discovery.Instance
	err      error
}

var _ discovery.Registry = (*Registry)(nil)

// New returns a registry that has read nothing yet.
func New(c Config) (*Registry, error) {
	if c.Path == "" {
		return nil, errors.New("file registry: a path is required")
	}
	r := &Registry{
		config: c,
		log:    cmp.Or(c.Logger, slog.New(slog.DiscardHandler)).With("component", "discovery"),
		broken: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chancery_discovery_file_broken",
			Help: "Whether the registry's files are at fault (1) or not (0).",
		}),
		wake:     make(chan struct{}, 1),
		reported: map[string]discovery.Update{},
		state:    state{err: errors.New("not read yet")},
	}
	if c.Registerer != nil {
		if err := c.Registerer.Register(r.broken); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Want implements [discovery.Registry].
func (r *Registry) Want(services []string) {
	r.mu.Lock()
	r.wanted = slices.DeleteFunc(slices.Sorted(slices.Values(services)), func(s string) bool {
		return !discovery.ValidName(s)
	})
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Ready implements [discovery.Registry].
func (r *Registry) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.wanted {
		if _, ok := r.reported[s]; !ok {
			return fmt.Errorf("service %q is not known yet: %w", s, cmp.Or(r.state.err, errors.New("reading")))
		}
	}
	return nil
}

// Run implements [discovery.Registry]. It fails when the path cannot be
// watched.
func (r *Registry) Run(ctx context.Context, notify func(discovery.Update)) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", r.config.Path, err)
	}
	defer watcher.Close()
	// A directory outlives its files: an editor's rename and a volume's
	// switched link take a watched file away.
	if err := watcher.Add(directory(r.config.Path)); err != nil {
		return fmt.Errorf("watch %s: %w", r.config.Path, err)
	}
	load := time.After(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
			r.report(notify)
		case <-load:
			load = nil
			r.load()
			r.report(notify)
		case <-watcher.Events:
			load = cmp.Or(load, time.After(settle))
		case err := <-watcher.Errors:
			r.log.Warn("file watch faltered", "path", r.config.Path, "err", err)
			load = cmp.Or(load, time.After(settle))
		}
	}
}

// directory returns what to watch for path.
func directory(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return path
	}
	return filepath.Dir(path)
}

// load reads the files. What is at fault changes nothing but the error.
func (r *Registry) load() {
	services, err := read(r.config.Path, r.config.Networks)
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.state.err
	r.state.err = err
	r.broken.Set(0)
	if err != nil {
		r.broken.Set(1)
		if before == nil || before.Error() != err.Error() {
			r.log.Error("registry files refused", "path", r.config.Path, "err", err)
		}
		return
	}
	r.state.services = services
	if before != nil {
		r.log.Info("registry files accepted", "path", r.config.Path, "services", len(services))
	}
}

// report notifies of all that is wanted and was not reported so yet. Nothing is
// known of any service before the files could be read once.
func (r *Registry) report(notify func(discovery.Update)) {
	for _, u := range r.news() {
		notify(u)
		r.mu.Lock()
		r.reported[u.Service] = u
		r.mu.Unlock()
	}
}

func (r *Registry) news() []discovery.Update {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.reported {
		if _, wanted := slices.BinarySearch(r.wanted, s); !wanted {
			delete(r.reported, s)
		}
	}
	if r.state.services == nil {
		return nil
	}
	var news []discovery.Update
	for _, s := range r.wanted {
		u := discovery.Update{Service: s, Instances: r.state.services[s]}
		if r.state.err != nil {
			u.Held, u.Reason = true, reasonBroken
		}
		if last, ok := r.reported[s]; !ok || last.Held != u.Held || !slices.Equal(last.Instances, u.Instances) {
			news = append(news, u)
		}
	}
	return news
}
