package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/breaker"
	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/internal/atomicfile"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/mesh"
)

const (
	// keysEvery is how often keys that are there are fetched again, give or
	// take a tenth.
	keysEvery = 5 * time.Minute
	// keysRetry is the first pause after a failure; each one more doubles it,
	// up to keysEvery.
	keysRetry = time.Second
	// keysTimeout bounds each of the two calls of a fetch.
	keysTimeout = 5 * time.Second
)

// keyring holds the keys of the identity providers, each fetched on its own so
// that a bad one delays no other. The last good keys stay, over restarts too,
// and carry until when they may be used; there is nothing else in their place.
type keyring struct {
	collection xds.Collection
	dir        string
	client     *http.Client
	log        *slog.Logger
	registerer prometheus.Registerer
	metrics    *metrics

	mu        sync.Mutex
	providers map[string]*provider
	wake      chan struct{}
}

// provider is one identity provider; the keyring's lock guards it.
type provider struct {
	document *mesh.IdentityProvider
	keys     fetchedKeys
	err      error
	// stop ends the fetching; nil before it begins.
	stop context.CancelFunc
}

// fetchedKeys are what is kept on disk.
type fetchedKeys struct {
	Issuer    string          `json:"issuer"`
	JWKS      json.RawMessage `json:"jwks"`
	FetchedAt time.Time       `json:"fetchedAt"`
}

func newKeyring(dir string, cfg Config, log *slog.Logger, m *metrics) *keyring {
	return &keyring{
		dir:        dir,
		client:     cfg.HTTPClient,
		log:        log,
		registerer: cfg.Registerer,
		metrics:    m,
		wake:       make(chan struct{}, 1),
	}
}

// use makes exactly these providers known, with the keys of before if there
// are any.
func (k *keyring) use(documents []*mesh.IdentityProvider) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.providers
	k.providers = map[string]*provider{}
	for _, d := range documents {
		p := before[d.Name]
		if p == nil || p.document.Issuer != d.Issuer {
			p = &provider{keys: k.load(d)}
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
			k.collection.Apply(nil, name)
			k.metrics.keysFetched.DeleteLabelValues(name)
		}
	}
	kick(k.wake)
}

// run fetches until ctx ends.
func (k *keyring) run(ctx context.Context) {
	var fetching sync.WaitGroup
	defer fetching.Wait()
	for {
		k.mu.Lock()
		for _, p := range k.providers {
			if p.stop == nil {
				var own context.Context
				own, p.stop = context.WithCancel(ctx)
				fetching.Go(func() { k.keep(own, p) })
			}
		}
		k.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		}
	}
}

// keep fetches the keys of p again and again until ctx ends.
func (k *keyring) keep(ctx context.Context, p *provider) {
	k.mu.Lock()
	name, issuer := p.document.Name, p.document.Issuer
	k.mu.Unlock()
	log := k.log.With("provider", name)
	client := breaker.HTTP(breaker.New(breaker.Config{
		Name:       "idp-" + name,
		Timeout:    keysTimeout,
		Logger:     k.log,
		Registerer: k.registerer,
	}), k.client)
	for retry := keysRetry; ctx.Err() == nil; {
		jwks, refused, err := fetchKeys(ctx, client, issuer)
		pause := keysEvery
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			log.ErrorContext(ctx, "keys not fetched", "issuer", issuer, "err", err, "refused", errors.Join(refused...))
			k.metrics.keysFailures.WithLabelValues(name).Inc()
			pause, retry = retry, min(2*retry, keysEvery)
		} else {
			retry = keysRetry
		}
		k.fetched(log, p, jwks, refused, err)
		sleep(ctx, jittered(pause))
	}
}

// fetched takes the outcome of one fetch.
func (k *keyring) fetched(log *slog.Logger, p *provider, jwks []byte, refused []error, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p.err = err
	if err != nil || k.providers[p.document.Name] != p {
		return
	}
	if string(jwks) != string(p.keys.JWKS) {
		log.Info("keys changed", "refused", errors.Join(refused...))
	}
	p.keys = fetchedKeys{Issuer: p.document.Issuer, JWKS: jwks, FetchedAt: time.Now()}
	k.publish(p)
	if err := k.save(p); err != nil {
		log.Error("keys not saved", "err", err)
	}
}

// publish puts the provider into the collection. The caller holds the lock.
func (k *keyring) publish(p *provider) {
	d := p.document
	m := translate.Provider(d)
	m.Jwks = p.keys.JWKS
	if !p.keys.FetchedAt.IsZero() {
		m.FetchedAt = timestamppb.New(p.keys.FetchedAt)
		m.UsableUntil = timestamppb.New(p.keys.FetchedAt.Add(d.KeysMaxAge))
		k.metrics.keysFetched.WithLabelValues(d.Name).Set(float64(p.keys.FetchedAt.Unix()))
	}
	r, err := xds.New(d.Name, m)
	if err != nil {
		k.log.Error("provider not encoded", "provider", d.Name, "err", err)
		return
	}
	k.collection.Apply([]*xds.Resource{r})
}

func (k *keyring) file(name string) string { return filepath.Join(k.dir, name+".json") }

func (k *keyring) save(p *provider) error {
	data, err := json.Marshal(p.keys)
	if err != nil {
		return err
	}
	return atomicfile.Write(k.file(p.document.Name), data, 0o600)
}

// load returns the keys that were last saved of a provider, or none.
func (k *keyring) load(d *mesh.IdentityProvider) fetchedKeys {
	keys, err := readKeys(k.file(d.Name), d.Issuer)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.log.Warn("saved keys not used", "provider", d.Name, "err", err)
	}
	return keys
}

func readKeys(path, issuer string) (fetchedKeys, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return fetchedKeys{}, err
	}
	var keys fetchedKeys
	if err := json.Unmarshal(data, &keys); err != nil {
		return fetchedKeys{}, fmt.Errorf("parse %s: %w", path, err)
	}
	if keys.Issuer != issuer {
		return fetchedKeys{}, fmt.Errorf("%s is of issuer %q", path, keys.Issuer)
	}
	if keys.FetchedAt.After(time.Now()) {
		return fetchedKeys{}, fmt.Errorf("%s is of the future: %v", path, keys.FetchedAt)
	}
	// What was good once is judged by today's rules.
	if keys.JWKS, _, err = publicKeys(keys.JWKS); err != nil {
		return fetchedKeys{}, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// status tells of each provider, sorted by name.
func (k *keyring) status() []ProviderStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]ProviderStatus, 0, len(k.providers))
	for _, name := range slices.Sorted(maps.Keys(k.providers)) {
		p := k.providers[name]
		s := ProviderStatus{Name: name, Issuer: p.document.Issuer, FetchedAt: p.keys.FetchedAt}
		if !s.FetchedAt.IsZero() {
			s.UsableUntil = s.FetchedAt.Add(p.document.KeysMaxAge)
		}
		if p.err != nil {
			s.Error = p.err.Error()
		}
		out = append(out, s)
	}
	return out
}

// jittered spreads a pause by a tenth to either side, so that replicas do not
// fall into step.
func jittered(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5) //nolint:gosec // nobody gains by guessing it
}

// sleep waits for d, or for the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
