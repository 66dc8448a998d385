// Package consul is the registry of HashiCorp Consul: it watches services by
// blocking queries on /v1/health/service, with the index rules of Consul's
// documentation, and keeps within Consul's limit on connections.
//
// Instances that are passing or warning are reported, with the weight of that
// status. The service's address (its node's where it has none) is
// [discovery.Instance.Address], the tagged address "mesh" is
// [discovery.Instance.Mesh]. An instance with an address that
// [discovery.Networks] refuses is left out, and so is a service whose name
// [discovery.ValidName] refuses; the log and the metric
// chancery_discovery_skipped tell. Meta and tags are not read: whoever may
// register a service must not thereby weaken its protection.
//
// What an answer leaves out is judged by [discovery.Keeper]; a Consul that
// fails, lies or is away changes nothing.
package consul

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-mesh/chancery/breaker"
	"github.com/chancery-mesh/chancery/discovery"
)

// Config of a [Registry]. Every field has a default.
type Config struct {
	// API says where Consul is; default is the standard CONSUL_* environment.
	// Its HttpClient is not used.
	API *api.Config
	// MaxConnections to Consul; default 128, since Consul refuses more than
	// 200 of one client. With more services than that, some share a
	// connection and are asked in turn, each about once a second.
	MaxConnections int
	// MaxWait bounds one blocking query; default 5m.
	MaxWait time.Duration
	// HoldFor is [discovery.KeeperConfig.HoldFor].
	HoldFor time.Duration
	// Networks is where instances may be; see [discovery.Networks].
	Networks discovery.Networks
	// Logger hears of what is skipped, held and failing; default none.
	Logger *slog.Logger
	// Registerer of the metrics; default none.
	Registerer prometheus.Registerer
}

// Registry is a [discovery.Registry] on Consul.
type Registry struct {
	client   *client
	keeper   *discovery.Keeper
	maxWait  time.Duration
	networks discovery.Networks
	log      *slog.Logger
	skipped  *prometheus.GaugeVec

	// notifying makes judging and notifying one step: updates of a service
	// arrive in the order they were judged.
	notifying sync.Mutex

	// mu guards what is watched by whom, and what was reported.
	mu       sync.Mutex
	watches  map[string]*watch
	workers  []*worker
	reported map[string]bool
}

var _ discovery.Registry = (*Registry)(nil)

// New returns a registry that has asked nothing yet.
func New(c Config) (*Registry, error) {
	log := cmp.Or(c.Logger, slog.New(slog.DiscardHandler)).With("component", "discovery")
	budget := cmp.Or(c.MaxConnections, 128)
	client, err := newClient(cmp.Or(c.API, api.DefaultConfig()), budget, breaker.New(breaker.Config{
		Name: "consul", OpenFor: time.Second, Logger: log, Registerer: c.Registerer,
	}))
	if err != nil {
		return nil, fmt.Errorf("consul client: %w", err)
	}
	keeper, err := discovery.NewKeeper(discovery.KeeperConfig{
		HoldFor: c.HoldFor, Logger: log, Registerer: c.Registerer,
	})
	if err != nil {
		return nil, err
	}
	r := &Registry{
		client:   client,
		keeper:   keeper,
		maxWait:  cmp.Or(c.MaxWait, 5*time.Minute),
		networks: c.Networks,
		log:      log,
		skipped: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "chancery_discovery_skipped",
			Help: "Instances of a service that Consul names and that can be no instances of the mesh.",
		}, []string{"service"}),
		watches:  map[string]*watch{},
		reported: map[string]bool{},
	}
	for range budget {
		r.workers = append(r.workers, &worker{registry: r})
	}
	if c.Registerer != nil {
		if err := c.Registerer.Register(r.skipped); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Run implements [discovery.Registry].
func (r *Registry) Run(ctx context.Context, notify func(discovery.Update)) error {
	var wg sync.WaitGroup
	for _, w := range r.workers {
		wg.Go(func() { w.run(ctx, notify) })
	}
	wg.Wait()
	r.client.http.CloseIdleConnections()
	return nil
}

// Ready implements [discovery.Registry].
func (r *Registry) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, service := range slices.Sorted(maps.Keys(r.watches)) {
		if !r.reported[service] {
			trouble := cmp.Or(r.watches[service].trouble, "consul has not answered")
			return fmt.Errorf("service %q is not known yet: %s", service, trouble)
		}
	}
	return nil
}

// Want implements [discovery.Registry]. Queries for services that stay go on.
func (r *Registry) Want(services []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	wanted := map[string]bool{}
	for _, s := range services {
		if wanted[s] = discovery.ValidName(s); !wanted[s] {
			r.log.Warn("service skipped", "service", s, "reason", "its name is no lower-case DNS label")
		}
	}
	for service, w := range r.watches {
		if !wanted[service] {
			w.worker.drop(w)
			delete(r.watches, service)
			delete(r.reported, service)
			r.keeper.Forget(service)
			r.skipped.DeleteLabelValues(service)
		}
	}
	for _, service := range slices.Sorted(maps.Keys(wanted)) {
		if wanted[service] && r.watches[service] == nil {
			least, _ := r.leastAndMost()
			r.assign(service, least)
		}
	}
	r.balance()
}

// deliver hands on what is judged of a service and returns it, unless w does
// not watch it any more.
func (r *Registry) deliver(w *watch, notify func(discovery.Update), judge func() (discovery.Update, bool)) discovery.Update {
	r.notifying.Lock()
	defer r.notifying.Unlock()
	r.mu.Lock()
	if r.watches[w.service] != w {
		r.mu.Unlock()
		return discovery.Update{}
	}
	u, news := judge()
	r.mu.Unlock()
	if news {
		notify(u)
		r.mu.Lock()
		r.reported[u.Service] = r.watches[u.Service] != nil
		r.mu.Unlock()
	}
	return u
}
