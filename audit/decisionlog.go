package audit

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Sink is where a [DecisionLog] goes. One goroutine uses it.
type Sink interface {
	// Append appends whole lines, and if durably returns nil only when they would
	// outlive a power cut. After an error they come again. No lines ask whether
	// there could be some.
	Append(lines []byte, durably bool) error
	// Durable reports whether it can append durably.
	Durable() bool
	Close() error
}

// DecisionLogConfig says what a [DecisionLog] runs with. Sink and Logger are
// required.
type DecisionLogConfig struct {
	Sink   Sink
	Logger *slog.Logger
	// Registerer gets the metrics; nil for none.
	Registerer prometheus.Registerer
	// Agent and Instance stand in each record.
	Agent, Instance string
	// MaxRecords and MaxBytes bound what waits to be written. Defaults 8192 and
	// 16 MiB.
	MaxRecords, MaxBytes int
	// Wait is how long a record that is required may take. Default 50ms.
	Wait time.Duration
	// Failing is called when the sink begins to fail, and, with nil, when it is well
	// again. Nil calls nobody.
	Failing func(error)
}

// DecisionLog writes decisions to a sink, which [DecisionLog.Run] must be
// running for. It is safe for concurrent use.
type DecisionLog struct {
	config  DecisionLogConfig
	log     *slog.Logger
	queue   *queue
	metrics *decisionMetrics
	// failing says that the sink failed the last time, and since when it has been
	// busy, in nanoseconds after begin; 0 if it is not.
	failing   atomic.Bool
	busySince atomic.Int64
	begin     time.Time
}

// ErrUnavailable says that a decision could not be recorded as it must be, so
// that it must not be acted upon.
var ErrUnavailable = errors.New("decision log is not available")

const (
	// retryAfter is how long a sink that failed is left alone.
	retryAfter = time.Second
	// linger is how long records that nobody waits for gather: waking the writer
	// for each would cost more than to write it.
	linger = 20 * time.Millisecond
	// closeAfter bounds how long the end may take.
	closeAfter = 5 * time.Second
)

// NewDecisionLog returns a log that writes nothing before it runs.
func NewDecisionLog(c DecisionLogConfig) (*DecisionLog, error) {
	if c.Sink == nil || c.Logger == nil {
		return nil, errors.New("decision log needs a sink and a logger")
	}
	c.MaxRecords, c.MaxBytes = cmp.Or(c.MaxRecords, 8192), cmp.Or(c.MaxBytes, 16<<20)
	c.Wait = cmp.Or(c.Wait, 50*time.Millisecond)
	if c.Failing == nil {
		c.Failing = func(error) {}
	}
	l := &DecisionLog{
		config: c, log: c.Logger.With("component", "audit"), queue: newQueue(c.MaxRecords, c.MaxBytes),
		begin: time.Now().Add(-time.Nanosecond),
	}
	l.metrics = newDecisionMetrics(l)
	if err := l.metrics.register(c.Registerer); err != nil {
		return nil, fmt.Errorf("register decision log metrics: %w", err)
	}
	return l, nil
}

// Record records d as far as possible: it never waits, and what finds no room is
// dropped, and counted. It keeps no reference to d, but to its texts, which it
// makes d's own.
func (l *DecisionLog) Record(d *Decision) {
	if !l.queue.put(d, nil) {
		l.metrics.dropped.Inc()
	}
}

// RecordDurably records d and returns when that would outlive a power cut. Any
// error is [ErrUnavailable]: the decision must then not be acted upon, and what
// is recorded, as far as possible, is that it was not. It waits no longer than
// the log's Wait, and not at all for a sink that is known not to work.
func (l *DecisionLog) RecordDurably(ctx context.Context, d *Decision) error {
	if !l.config.Sink.Durable() || l.failing.Load() || l.isStuck() {
		return l.refuse(d)
	}
	r := &receipt{done: make(chan error, 1)}
	if !l.queue.put(d, r) {
		l.metrics.dropped.Inc()
		return ErrUnavailable
	}
	timeout := time.NewTimer(l.config.Wait)
	defer timeout.Stop()
	select {
	case err := <-r.done:
		return err
	case <-timeout.C:
	case <-ctx.Done():
	}
	if r.state.CompareAndSwap(waiting, abandoned) {
		return ErrUnavailable // and so the writer will write
	}
	return l.refuse(d) // the line may be there already: another takes it back
}

// refuse records that d was not acted upon.
func (l *DecisionLog) refuse(d *Decision) error {
	refused := *d
	refused.unavailable()
	l.Record(&refused)
	return ErrUnavailable
}

// isStuck reports whether the sink has been busy for longer than anybody waits.
func (l *DecisionLog) isStuck() bool {
	since := l.busySince.Load()
	return since != 0 && time.Since(l.begin)-time.Duration(since) >= l.config.Wait
}

// Run writes until ctx ends, then what there is, and closes the sink. It
// can be called once. From then on, nothing is recorded. It does not wait for
// long then for a sink that takes nothing, as a full pipe that nobody reads.
func (l *DecisionLog) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- l.write(ctx) }()
	<-ctx.Done()
	l.queue.close()
	timeout := time.NewTimer(closeAfter)
	defer timeout.Stop()
	select {
	case err := <-done:
		return err
	case <-timeout.C:
		return errors.New("decision log: the last decisions were not written in time")
	}
}

// Start has l run until finish is called, which waits for the last line. A nil log
// writes none.
func (l *DecisionLog) Start() (finish func()) {
	if l == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := l.Run(ctx); err != nil {
			l.log.Error("decision log ended badly", "err", err)
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

func (l *DecisionLog) write(ctx context.Context) error {
	w := &writer{DecisionLog: l, encoder: newEncoder(l.config.Agent, l.config.Instance, rand.Text()[:12])}
	_ = w.append(false) // what is wrong with the sink shows before anything is lost
	for ctx.Err() == nil {
		l.queue.wait(ctx)
		w.writeAll(ctx)
	}
	w.writeAll(ctx)
	if err := l.config.Sink.Close(); err != nil {
		return fmt.Errorf("close decision log: %w", err)
	}
	return nil
}
