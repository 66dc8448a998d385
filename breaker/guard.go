package breaker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"
)

// ErrOpen says that a call was not made, because too many before it failed.
var ErrOpen = errors.New("circuit breaker is open")

// errAbandoned marks calls that the caller gave up; they say nothing of the
// other side.
var errAbandoned = errors.New("abandoned by the caller")

// Config of a [Guard]. Every field has a default but Name.
type Config struct {
	// Name of the other system, in metrics, logs and errors.
	Name string
	// Timeout bounds each call; default 5s. See also [Guard.Within].
	Timeout time.Duration
	// Failures in a row open the breaker; default 5.
	Failures uint32
	// OpenFor is how long it stays open before one call may try; default 5s.
	OpenFor time.Duration
	// Logger hears of the breaker's changes; default none.
	Logger *slog.Logger
	// Registerer of the metrics; guards may share one. Default none.
	Registerer prometheus.Registerer
}

// Guard stands before one other system. It is safe for concurrent use; make
// calls with [Do] or [HTTP].
type Guard struct {
	name    string
	timeout time.Duration
	breaker *gobreaker.CircuitBreaker[any]
	metrics metrics
}

// New returns a closed Guard.
func New(c Config) *Guard {
	log := cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	m := newMetrics(c.Registerer)
	m.state.WithLabelValues(c.Name).Set(0)
	failures := cmp.Or(c.Failures, 5)
	return &Guard{
		name:    c.Name,
		timeout: cmp.Or(c.Timeout, 5*time.Second),
		metrics: m,
		breaker: gobreaker.NewCircuitBreaker[any](gobreaker.Settings{
			Name:        c.Name,
			Timeout:     cmp.Or(c.OpenFor, 5*time.Second),
			ReadyToTrip: func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= failures },
			IsExcluded:  func(err error) bool { return errors.Is(err, errAbandoned) },
			OnStateChange: func(name string, from, to gobreaker.State) {
				m.state.WithLabelValues(name).Set(float64(to))
				log.Warn("outgoing circuit breaker changed", "name", name, "from", from.String(), "to", to.String())
			},
		}),
	}
}

// Within returns the same guard (one breaker, the same metrics) with another
// deadline for its calls.
func (g *Guard) Within(timeout time.Duration) *Guard {
	other := *g
	other.timeout = timeout
	return &other
}

// Closed reports whether calls pass freely. A caller whose calls take long by
// design makes a short one first when they do not: the single call that tries
// a broken system again holds all others off until it ends.
func (g *Guard) Closed() bool { return g.breaker.State() == gobreaker.StateClosed }

// Do calls fn under the guard. fn must return soon after its context ends. The
// error is fn's own, or wraps [ErrOpen] when fn was not called. A call whose
// ctx was cancelled counts neither for nor against the other side.
func Do[T any](ctx context.Context, g *Guard, fn func(context.Context) (T, error)) (T, error) {
	var out T
	start := time.Now()
	_, err := g.breaker.Execute(func() (any, error) {
		call, cancel := context.WithTimeout(ctx, g.timeout)
		defer cancel()
		var err error
		out, err = fn(call)
		if err != nil && errors.Is(ctx.Err(), context.Canceled) {
			err = fmt.Errorf("%w: %w", errAbandoned, err)
		}
		return nil, err
	})
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		err = fmt.Errorf("%s: %w", g.name, ErrOpen)
	}
	g.metrics.observe(g.name, err, time.Since(start))
	return out, err
}
