package sidecar

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

const (
	// reportPause is how long changes are gathered before a report.
	reportPause   = 50 * time.Millisecond
	reportTimeout = 5 * time.Second
)

// reporter tells the control plane how Envoy stands: on every change, and every
// now and then, to hear whether it is there and what is the newest.
type reporter struct {
	client   chancerypb.ControlPlaneClient
	book     *book
	describe func() *chancerypb.ReportRequest
	// heard is told of the answer to a report that was sent at a time.
	heard func(sent time.Time, answer *chancerypb.ReportResponse)
	// every returns the longest time between two reports.
	every func() time.Duration
	log   *slog.Logger
}

// run reports until ctx ends. A report that fails is made again: the control
// plane may have forgotten the earlier ones.
func (r *reporter) run(ctx context.Context) error {
	pause := backoff{min: 100 * time.Millisecond, max: 2 * time.Second}
	for {
		if !sleep(ctx, reportPause) {
			return nil
		}
		changed, next := r.book.watch(), r.every()
		if err := r.report(ctx); err != nil {
			r.log.DebugContext(ctx, "report not delivered", "err", err)
			next = pause.grow()
		} else {
			pause.reset()
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-changed: // that the control plane is back, maybe
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (r *reporter) report(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	sent := time.Now()
	answer, err := r.client.Report(ctx, r.describe(), grpc.WaitForReady(true))
	if err == nil {
		r.heard(sent, answer)
	}
	return err
}
