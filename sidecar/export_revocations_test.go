package sidecar

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/chancery-mesh/chancery/extauthz/revocation"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// Revocations are revocations.
type Revocations struct{ rs *revocations }

// LoadRevocations returns those of an agent that just starts, which has a last
// good state if established.
func LoadRevocations(dir string, established bool) Revocations {
	rs := newRevocations(filepath.Join(dir, revocationsFile), slog.New(slog.DiscardHandler), func(*revocation.Index) {})
	rs.load(established)
	return Revocations{rs}
}

func (r Revocations) Take(resources ...*xds.Resource) error { return r.rs.take(resources) }
func (r Revocations) Index() *revocation.Index              { return r.rs.index.Load() }
func (r Revocations) Sequence() uint64                      { return r.rs.sequence() }

// Contact is contact.
type Contact struct{ c *contact }

// LoadContact returns that of an agent that just starts.
func LoadContact(dir string) Contact {
	c := &contact{path: filepath.Join(dir, contactFile), log: slog.New(slog.DiscardHandler)}
	c.load()
	return Contact{c}
}

func (c Contact) Made(at time.Time) { c.c.made(at) }
func (c Contact) Last() time.Time   { return c.c.last() }

// Reporter is a reporter of an agent whose Envoy does nothing.
type Reporter struct{ r *reporter }

// NewReporter returns one that reports at least every so often.
func NewReporter(client chancerypb.ControlPlaneClient, every time.Duration, heard func(time.Time, *chancerypb.ReportResponse)) Reporter {
	log := slog.New(slog.DiscardHandler)
	return Reporter{&reporter{
		client: client, book: newBook(log, nil), heard: heard, log: log,
		describe: func() *chancerypb.ReportRequest { return &chancerypb.ReportRequest{} },
		every:    func() time.Duration { return every },
	}}
}

func (r Reporter) Run(ctx context.Context) error { return r.r.run(ctx) }

// Touch is news of what is reported.
func (r Reporter) Touch() { r.r.book.touch() }
