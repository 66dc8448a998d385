package provider

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/chancery-mesh/chancery/breaker"
	"github.com/chancery-mesh/chancery/mesh"
)

const (
	// firstRetry is the pause after a failure where there are no keys; each one
	// more doubles it, up to maxRetry.
	firstRetry = time.Second
	// maxRetry is the longest pause after a failure.
	maxRetry = 30 * time.Second
	// fetchTimeout bounds all calls of a fetch together.
	fetchTimeout = 5 * time.Second
	// toldEvery is how often verifiers are told that the same keys were fetched
	// again; shorter where keys do not last long.
	toldEvery = 5 * time.Minute
)

// keep fetches the keys of p, by d, again and again until ctx ends.
func (k *Keyring) keep(ctx context.Context, p *provider, d *mesh.IdentityProvider) {
	f := k.newFetcher(d)
	told := teller{log: k.log.With("provider", d.Name, "issuer", d.Issuer)}
	pace := pace{refresh: d.Refresh}
	var waiting chan<- struct{}
	for ctx.Err() == nil {
		began := time.Now()
		got, refused, err := f.fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		told.tell(ctx, refused, cmp.Or(err, got.problem))
		usable := k.fetched(p, got, err)
		if waiting != nil {
			close(waiting)
		}
		pause := pace.next(err == nil, usable) - time.Since(began)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
			waiting = nil
		case waiting = <-p.refresh:
			f.forget()
		}
	}
}

func (k *Keyring) newFetcher(d *mesh.IdentityProvider) *fetcher {
	guard := breaker.New(breaker.Config{
		Name:       "idp-" + d.Name,
		Timeout:    fetchTimeout,
		Logger:     k.log,
		Registerer: k.cfg.Registerer,
	})
	client := k.cfg.Client
	if client == nil {
		client = breaker.Outward(d.AllowPrivate)
	}
	return &fetcher{document: d, client: breaker.HTTP(guard, client)}
}

// fetched takes the outcome of one fetch, and reports whether there are keys
// that can be used.
func (k *Keyring) fetched(p *provider, got published, err error) (usable bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d, now := p.document, time.Now()
	p.err = cmp.Or(err, got.problem)
	if err != nil {
		k.metrics.failures.WithLabelValues(d.Name).Inc()
		return !p.found.FetchedAt.IsZero() && now.Before(p.found.FetchedAt.Add(d.KeysMaxAge))
	}
	if k.providers[d.Name] != p {
		return true
	}
	news := !got.equal(p.found.published)
	if news {
		k.log.Info("provider changed", "provider", d.Name, "key_ids", keyIDs(got.JWKS), "before", keyIDs(p.found.JWKS))
	}
	p.found = found{published: got, Issuer: d.Issuer, FetchedAt: now}
	k.metrics.fetched.WithLabelValues(d.Name).Set(float64(now.Unix()))
	if news || now.Sub(p.told) >= min(toldEvery, d.KeysMaxAge/10) {
		k.publish(p)
		if err := k.save(p); err != nil {
			k.log.Error("keys not saved", "provider", d.Name, "err", err)
		}
	}
	return true
}

// pace says how long after the begin of a fetch the next one begins.
type pace struct {
	refresh time.Duration
	retry   time.Duration
	// steady says that a fetch was good before.
	steady bool
}

// next takes whether the fetch was good, and whether there are keys to use.
// After the first good one the pause is a random part of the usual one, so that
// replicas that begin together do not ask together ever after.
func (p *pace) next(good, usable bool) time.Duration {
	longest := min(p.refresh, maxRetry)
	switch {
	case good && p.steady:
		p.retry = 0
		return p.refresh
	case good:
		p.retry, p.steady = 0, true
		return p.refresh/2 + rand.N(p.refresh/2) //nolint:gosec // nobody gains by guessing it
	case usable:
		return longest
	}
	p.retry = min(max(2*p.retry, firstRetry), longest)
	return p.retry
}

// teller tells of failures when they begin, change and end.
type teller struct {
	log  *slog.Logger
	last string
}

func (t *teller) tell(ctx context.Context, refused []error, err error) {
	now := ""
	if err != nil {
		now = err.Error()
	}
	switch {
	case now == t.last:
	case err != nil:
		t.log.ErrorContext(ctx, "provider not fetched", "err", err, "refused", errors.Join(refused...))
	default:
		t.log.InfoContext(ctx, "provider fetched again")
	}
	t.last = now
}
