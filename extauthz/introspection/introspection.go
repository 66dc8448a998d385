// Package introspection asks identity providers about tokens (RFC 7662): about
// opaque ones, which say nothing themselves, and on critical routes about JWTs,
// which may have been revoked.
//
//	i, err := introspection.New(introspection.Config{Secret: introspection.Secrets(dir)})
//	id, err := i.Introspect(ctx, provider, token, address, now)
//
// It is the one part of a decision that waits for others, so it is bounded in
// every way: one call for all who ask about the same token at once, few calls at
// once, some in a second, fewer for an address whose tokens turn out to be no
// good, a deadline, a circuit breaker. What was answered is remembered for a
// while: whom a good token speaks for, never whether something was allowed.
//
// Whether a token is good and whether anybody could say so are two things: the
// error is a [credential.Reason] for the first, and wraps [ErrUnavailable] for
// the second.
package introspection

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/memory"
	"github.com/chancery-mesh/chancery/internal/throttle"
)

// ErrUnavailable says that nobody could tell whether a token is good.
var ErrUnavailable = errors.New("introspection is not available")

const (
	// timeout of everything that is done for one token. Envoy waits two seconds
	// for a decision.
	timeout = 1500 * time.Millisecond
	// inactiveFor is how long a token that is no good is remembered. It can only
	// become good where a provider's replicas disagree for a moment.
	inactiveFor = 10 * time.Second
	// maxAnswer bounds what is remembered of a token, in bytes.
	maxAnswer = credential.MaxTokenSize
	// maxDesks bounds the providers that are remembered, since they come and go
	// with documents.
	maxDesks = 1024
	// maxCalls to one provider at once.
	maxCalls = 16
	// guesses are how many bad tokens an address may show at once, and then one
	// in each guessEvery.
	guesses    = 50
	guessEvery = 100 * time.Millisecond
)

// Config of an [Introspector].
type Config struct {
	// Secret returns the secret of a provider's client, by the name that its
	// document has for it; required. See [Secrets].
	Secret func(name string) (string, error)
	// Client calls providers; default [breaker.Outward] as their documents say.
	Client *http.Client
	// Size is about how many good tokens are remembered, and how many bad ones;
	// default 8192.
	Size int
	// Logger hears of providers that fail and recover; default none.
	Logger *slog.Logger
	// Registerer of the metrics; default none.
	Registerer prometheus.Registerer
}

// Introspector asks about tokens. It is safe for concurrent use.
type Introspector struct {
	cfg     Config
	metrics metrics
	// timeout is timeout, but for tests.
	timeout time.Duration

	active   *memory.Memory[*credential.Identity]
	inactive *memory.Memory[credential.Reason]
	flights  singleflight.Group
	// bySource bounds bad tokens, and seed keeps who shares a slot unknown.
	bySource *throttle.Throttle
	seed     maphash.Seed

	// desks by the name of their provider. Whoever makes one holds making, which
	// guards how many there are.
	desks   sync.Map
	making  sync.Mutex
	desksIn int
}

// New returns an Introspector that has asked nothing yet.
func New(c Config) (*Introspector, error) {
	if c.Secret == nil {
		return nil, errors.New("introspection without secrets of clients")
	}
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	size := cmp.Or(c.Size, 8192)
	return &Introspector{
		cfg: c, metrics: newMetrics(c.Registerer), timeout: timeout,
		active: memory.New[*credential.Identity](size), inactive: memory.New[credential.Reason](size),
		bySource: throttle.New(guesses, guessEvery), seed: maphash.MakeSeed(),
	}, nil
}

// Introspect returns whom a token speaks for, by what its provider says; who
// may show it is for [credential.Identity.ShownBy]. Address is the client's. An
// error is a [credential.Reason], or wraps [ErrUnavailable].
func (i *Introspector) Introspect(
	ctx context.Context, p *chancerypb.Provider, token, address string, now time.Time,
) (*credential.Identity, error) {
	if !credential.IsToken68(token) {
		return nil, credential.Malformed
	}
	d, err := i.desk(p)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	q := question{desk: d, token: token, source: i.source(address), key: d.key(token), now: now}
	if id, known, err := i.remembered(&q); known {
		return id, err
	}
	return i.wait(ctx, q)
}

// remembered returns what was answered about a token, if it is still known.
func (i *Introspector) remembered(q *question) (id *credential.Identity, known bool, err error) {
	if id, known := i.active.Get(&q.key, q.now); known {
		i.metrics.count(q.provider, "active_remembered")
		return id, true, nil
	}
	if reason, known := i.inactive.Get(&q.key, q.now); known {
		i.metrics.count(q.provider, "inactive_remembered")
		return nil, true, reason
	}
	return nil, false, nil
}

// question is about one token.
type question struct {
	*desk
	token string
	// source is who shows it, as bySource has it.
	source uint64
	key    [keySize]byte
	now    time.Time
}

// wait asks once for all who show the token from the same source at once. The
// call goes on for the others when one of them gives up.
func (i *Introspector) wait(ctx context.Context, q question) (*credential.Identity, error) {
	flight := fmt.Sprintf("%s%x", q.key[:], q.source)
	done := i.flights.DoChan(flight, func() (id any, err error) {
		defer func() {
			if p := recover(); p != nil { // nobody else would, in this goroutine
				id, err = nil, fmt.Errorf("%w: panic: %v", ErrUnavailable, p)
			}
		}()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), i.timeout)
		defer cancel()
		// An earlier call may have ended since nothing was known.
		if id, known, err := i.remembered(&q); known {
			return id, err
		}
		return i.ask(ctx, q)
	})
	select {
	case result := <-done:
		id, _ := result.Val.(*credential.Identity)
		return id, result.Err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

// ask asks, if it may, and remembers the answer.
func (i *Introspector) ask(ctx context.Context, q question) (*credential.Identity, error) {
	if !i.bySource.Take(q.source, q.now) {
		i.metrics.count(q.provider, "throttled")
		return nil, fmt.Errorf("%w: too many bad tokens of one address", ErrUnavailable)
	}
	id, size, err := q.call(ctx, q.token, q.now)
	reason, isReason := errors.AsType[credential.Reason](err)
	if err == nil || !isReason {
		i.bySource.GiveBack(q.source)
	}
	switch {
	case err == nil:
		i.metrics.count(q.provider, "active")
		if until := q.until(id, q.now); until.After(q.now) {
			i.active.Put(q.key, id, until, size, q.now)
		}
		return id, nil
	case isReason:
		i.metrics.count(q.provider, "inactive")
		i.inactive.Put(q.key, reason, q.now.Add(inactiveFor), 0, q.now)
		return nil, reason
	}
	i.metrics.count(q.provider, "unavailable")
	return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// source is what one client commands.
func (i *Introspector) source(address string) uint64 {
	ip, _ := netip.ParseAddr(address) // those without are one
	return maphash.Comparable(i.seed, throttle.Network(ip))
}
