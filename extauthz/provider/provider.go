// Package provider keeps the keys of identity providers, for whoever verifies
// their tokens: the control plane for the whole mesh, `chancery authz` for
// itself.
//
//	keys, err := provider.New(provider.Config{Dir: dir, Changed: publish})
//	keys.Use(mesh.Providers)
//	err = keys.Run(ctx)
//
// A [Keyring] fetches the keys of each provider by OpenID Connect Discovery 1.0,
// again and again, on its own: one that hangs delays no other. A provider is
// asked by the clock alone, never because of a token, so a flood of tokens with
// unknown keys reaches nobody. What was fetched last stays while a provider is
// away, over restarts too, and carries until when it may be used; there is
// nothing else in its place.
//
// The package verifies no tokens and knows nothing of who is told.
package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
)

// ErrUnknown says that there is no provider of a name.
var ErrUnknown = errors.New("no such identity provider")

// Config of a [Keyring]. Every field but Changed has a default.
type Config struct {
	// Dir keeps the last good keys over restarts; default: nothing keeps them.
	// It must exist.
	Dir string
	// Changed is told of each provider whenever what verifiers need to know of
	// it is new, and, with nil, that it is gone. Calls are in order, one at a
	// time, and must not call the Keyring.
	Changed func(name string, p *chancerypb.Provider)
	// Client calls providers; default [breaker.Outward] as their documents say.
	Client *http.Client
	// Logger hears of failures and changes; default none.
	Logger *slog.Logger
	// Registerer of the metrics; default none.
	Registerer prometheus.Registerer
}

// Keyring holds the keys of identity providers. It is safe for concurrent use.
type Keyring struct {
	cfg     Config
	log     *slog.Logger
	metrics metrics

	mu        sync.Mutex
	providers map[string]*provider
	wake      chan struct{}
}

// provider is one identity provider; the keyring's lock guards it.
type provider struct {
	document *mesh.IdentityProvider
	// found is what was fetched last, and told when that was of what was told
	// last.
	found found
	told  time.Time
	err   error
	// stop ends the fetching; nil before it begins.
	stop context.CancelFunc
	// refresh takes channels to close after a fetch that begins now.
	refresh chan chan<- struct{}
}

// New returns a Keyring without providers.
func New(c Config) (*Keyring, error) {
	if c.Changed == nil {
		return nil, errors.New("keys of providers without anybody to tell")
	}
	return &Keyring{
		cfg:     c,
		log:     cmp.Or(c.Logger, slog.New(slog.DiscardHandler)),
		metrics: newMetrics(c.Registerer),
		wake:    make(chan struct{}, 1),
	}, nil
}

// Use makes exactly these providers known, with the keys of before if there
// are any.
func (k *Keyring) Use(documents []*mesh.IdentityProvider) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.providers
	k.providers = map[string]*provider{}
	for _, d := range documents {
		p := before[d.Name]
		if p == nil || !sameSource(p.document, d) {
			p = k.anew(p, d)
		} else {
			delete(before, d.Name)
		}
		p.document = d
		k.providers[d.Name] = p
		k.publish(p)
	}
	for name, p := range before {
		if p.stop != nil {
			p.stop()
		}
		if k.providers[name] == nil {
			k.cfg.Changed(name, nil)
			k.metrics.forget(name)
		}
	}
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// sameSource reports whether keys are fetched by both documents in the same
// way.
func sameSource(a, b *mesh.IdentityProvider) bool {
	return a.Issuer == b.Issuer && a.Refresh == b.Refresh && a.AllowPrivate == b.AllowPrivate &&
		slices.Equal(a.JWKSHosts, b.JWKSHosts) &&
		needsKeys(a) == needsKeys(b) && needsEndpoint(a) == needsEndpoint(b)
}

// isFetched reports whether there is anything to ask for.
func isFetched(d *mesh.IdentityProvider) bool { return needsKeys(d) || needsEndpoint(d) }

// anew returns the provider of a document that is fetched in another way than
// before was, which may be nil. Keys of one issuer are nobody else's, and those
// of a host that the document no longer names are nobody's.
func (k *Keyring) anew(before *provider, d *mesh.IdentityProvider) *provider {
	p := &provider{refresh: make(chan chan<- struct{})}
	if before != nil && before.document.Issuer == d.Issuer {
		if p.found = before.found; p.found.check(d) != nil {
			p.found = found{}
		}
	} else {
		p.found = k.load(d)
	}
	return p
}

// Run fetches until ctx ends.
func (k *Keyring) Run(ctx context.Context) error {
	var fetching sync.WaitGroup
	defer fetching.Wait()
	for {
		k.mu.Lock()
		for _, p := range k.providers {
			if p.stop == nil && isFetched(p.document) {
				var own context.Context
				own, p.stop = context.WithCancel(ctx)
				document := p.document
				fetching.Go(func() { k.keep(own, p, document) })
			}
		}
		k.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		}
	}
}

// Refresh fetches the keys of a provider now, or of all if name is empty,
// whatever providers say of answers that have not changed. It waits until they
// have answered or ctx ends, and returns how they are then. The error is
// [ErrUnknown]; that keys could not be fetched is in the status.
func (k *Keyring) Refresh(ctx context.Context, name string) ([]Status, error) {
	chosen := func(other string) bool { return name == "" || other == name }
	var waiting sync.WaitGroup
	k.mu.Lock()
	if name != "" && k.providers[name] == nil {
		k.mu.Unlock()
		return nil, fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	for other, p := range k.providers {
		if chosen(other) && isFetched(p.document) {
			waiting.Go(func() { p.await(ctx) })
		}
	}
	k.mu.Unlock()
	waiting.Wait()
	return slices.DeleteFunc(k.Status(), func(s Status) bool { return !chosen(s.Name) }), nil
}

// await waits for a fetch that begins now.
func (p *provider) await(ctx context.Context) {
	done := make(chan struct{})
	select {
	case p.refresh <- done:
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// Status says how the keys of an identity provider are.
type Status struct {
	Name   string `json:"name"`
	Issuer string `json:"issuer"`
	// FetchedAt is zero when there never were any.
	FetchedAt time.Time `json:"fetchedAt,omitzero"`
	// Opaque says that it needs no keys, since it is asked about each token.
	Opaque bool `json:"opaque,omitempty"`
	// UsableUntil is until when verifiers use what they have.
	UsableUntil time.Time `json:"usableUntil,omitzero"`
	// KeyIDs are those of the keys, sorted.
	KeyIDs []string `json:"keyIDs,omitempty"`
	// Error is why the last fetch failed.
	Error string `json:"error,omitempty"`
}

// Status tells of each provider, sorted by name.
func (k *Keyring) Status() []Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]Status, 0, len(k.providers))
	for _, name := range slices.Sorted(maps.Keys(k.providers)) {
		p := k.providers[name]
		s := Status{
			Name: name, Issuer: p.document.Issuer, Opaque: !needsKeys(p.document),
			FetchedAt: p.found.FetchedAt, KeyIDs: keyIDs(p.found.JWKS),
		}
		if !p.told.IsZero() {
			s.UsableUntil = p.told.Add(p.document.KeysMaxAge)
		}
		if p.err != nil {
			s.Error = p.err.Error()
		}
		out = append(out, s)
	}
	return out
}
