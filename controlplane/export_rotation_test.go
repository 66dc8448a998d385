package controlplane

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// RotateEvery is how often the rotation looks.
const RotateEvery = rotateEvery

// Rotation is a rotation with a book of its own.
type Rotation struct{ *rotation }

// NewRotation returns one that has heard of no proxy, and takes down what it
// does with record.
func NewRotation(log *slog.Logger, r prometheus.Registerer, record func(StepStatus, string, error)) Rotation {
	return Rotation{newRotation(newProxies(), log, newMetrics(r), record)}
}

// Run is run, at one CA.
func (r Rotation) Run(ctx context.Context, a *ca.CA) {
	r.run(ctx, func() authorities { return a })
}

// LastRequest is how long connections are used after their handshake.
func (r Rotation) LastRequest(d time.Duration) { r.lastRequest.Store(int64(d)) }

// Next is next.
func (r Rotation) Next(a *ca.CA) []StepStatus { return r.next(a) }

// Command is command.
func (r Rotation) Command(a *ca.CA, step Step, authority string, force bool) error {
	return r.command(a, step, authority, force, "test")
}

// Connect and Note are a stream, until it disconnects, and a report of the agent
// that has a certificate.
func (r Rotation) Connect(c ca.Certificate) (disconnect func()) {
	p := r.proxies.connect(c.ID, c.Lineage, "1", nil)
	return func() { r.proxies.disconnect(p, nil) }
}

func (r Rotation) Note(c ca.Certificate, report *chancerypb.ReportRequest) {
	r.proxies.note(caller{ID: c.ID, certificate: c}, report)
}

// Prepare is prepare.
func (r Rotation) Prepare(a *ca.CA) error { return r.prepare(a, false, "test") }
