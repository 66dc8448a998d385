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

// reporter tells the control plane how Envoy stands, on every change.
type reporter struct {
	client   chancerypb.ControlPlaneClient
	book     *book
	describe func() *chancerypb.ReportRequest
	log      *slog.Logger
}

// run reports until ctx ends. A report that fails is made again: the control
// plane may have forgotten the earlier ones.
func (r *reporter) run(ctx context.Context) error {
	pause := backoff{min: 100 * time.Millisecond, max: 2 * time.Second}
	for {
		if !sleep(ctx, reportPause) {
			return nil
		}
		changed := r.book.watch()
		if err := r.report(ctx); err != nil {
			r.log.DebugContext(ctx, "report not delivered", "err", err)
			if !pause.wait(ctx) {
				return nil
			}
			continue
		}
		pause.reset()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (r *reporter) report(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	_, err := r.client.Report(ctx, r.describe(), grpc.WaitForReady(true))
	return err
}
