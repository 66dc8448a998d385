package breaker_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/chancery-mesh/chancery/breaker"
)

var errDown = errors.New("down")

func ok(context.Context) (string, error)   { return "fine", nil }
func down(context.Context) (string, error) { return "", errDown }
func hang(ctx context.Context) (string, error) {
	<-ctx.Done()
	return "", ctx.Err()
}

func TestDo(t *testing.T) {
	t.Parallel()
	g := breaker.New(breaker.Config{Name: "idp"})
	if got, err := breaker.Do(t.Context(), g, ok); got != "fine" || err != nil {
		t.Errorf("Do = %q, %v", got, err)
	}
	if _, err := breaker.Do(t.Context(), g, down); !errors.Is(err, errDown) {
		t.Errorf("Do = %v, want fn's own error", err)
	}
}

func TestDoEndsAtItsDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := breaker.New(breaker.Config{Name: "idp", Timeout: 2 * time.Second})
		for name, c := range map[string]struct {
			guard *breaker.Guard
			want  time.Duration
		}{
			"of the guard": {g, 2 * time.Second},
			"of the call":  {g.Within(7 * time.Second), 7 * time.Second},
		} {
			start := time.Now()
			_, err := breaker.Do(t.Context(), c.guard, hang)
			if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != c.want {
				t.Errorf("deadline %s: %v after %v, want after %v", name, err, took, c.want)
			}
		}
	})
}

func TestGuardOpensAndCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := breaker.New(breaker.Config{Name: "idp", Failures: 3, OpenFor: time.Minute})
		for range 3 {
			breaker.Do(t.Context(), g, down)
		}
		if _, err := breaker.Do(t.Context(), g.Within(time.Hour), ok); !errors.Is(err, breaker.ErrOpen) || g.Closed() {
			t.Fatalf("after three failures: %v, closed %v", err, g.Closed())
		}
		time.Sleep(time.Minute + time.Nanosecond)
		if _, err := breaker.Do(t.Context(), g, down); !errors.Is(err, errDown) {
			t.Fatalf("after a minute one call may try: %v", err)
		}
		if _, err := breaker.Do(t.Context(), g, ok); !errors.Is(err, breaker.ErrOpen) {
			t.Fatalf("after the try failed: %v", err)
		}
		time.Sleep(time.Minute + time.Nanosecond)
		if _, err := breaker.Do(t.Context(), g, ok); err != nil || !g.Closed() {
			t.Fatalf("after the try worked: %v, closed %v", err, g.Closed())
		}
	})
}

func TestAbandonedCallsDoNotOpen(t *testing.T) {
	t.Parallel()
	g := breaker.New(breaker.Config{Name: "idp", Failures: 1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := breaker.Do(ctx, g, hang); !errors.Is(err, context.Canceled) || !g.Closed() {
		t.Errorf("Do = %v, closed %v", err, g.Closed())
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	r := prometheus.NewPedanticRegistry()
	g := breaker.New(breaker.Config{Name: "idp", Failures: 2, Timeout: time.Millisecond, Registerer: r})
	breaker.New(breaker.Config{Name: "consul", Registerer: r})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	breaker.Do(cancelled, g, hang)
	for _, fn := range []func(context.Context) (string, error){ok, down, hang, ok} {
		breaker.Do(t.Context(), g, fn)
	}
	want := `
# HELP chancery_outgoing_calls_total Outgoing calls by result: ok, error, timeout, open (not made), abandoned.
# TYPE chancery_outgoing_calls_total counter
chancery_outgoing_calls_total{name="idp",result="abandoned"} 1
chancery_outgoing_calls_total{name="idp",result="error"} 1
chancery_outgoing_calls_total{name="idp",result="ok"} 1
chancery_outgoing_calls_total{name="idp",result="open"} 1
chancery_outgoing_calls_total{name="idp",result="timeout"} 1
# HELP chancery_outgoing_state Circuit breaker of outgoing calls: 0 closed, 1 half-open, 2 open.
# TYPE chancery_outgoing_state gauge
chancery_outgoing_state{name="consul"} 0
chancery_outgoing_state{name="idp"} 2
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want),
		"chancery_outgoing_calls_total", "chancery_outgoing_state"); err != nil {
		t.Error(err)
	}
}
