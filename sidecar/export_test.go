package sidecar

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// SetProbation changes how long an Envoy must live for a promotion. To be
// called before Run.
func (a *Agent) SetProbation(d time.Duration) { a.rollout.probation = d }

// Peers is peers.
type Peers struct{ peers }

func (p *Peers) Take(t *identity.Trust, own *identity.SVID) (map[string]string, bool) {
	return p.take(t, own)
}

// ListenForEnvoy is listenForEnvoy.
var ListenForEnvoy = listenForEnvoy

// Withdraw is withdraw.
var Withdraw = withdraw

// HoldDisk makes the disk slow until release.
func HoldDisk(a *Agent) (release func()) {
	a.rollout.disk.mu.Lock()
	return a.rollout.disk.mu.Unlock
}

// Newest returns the newest revision that an agent holds all of.
func Newest(a *Agent) string {
	a.held.mu.Lock()
	defer a.held.mu.Unlock()
	return a.held.last.id
}

// Holds tells whether an agent holds a resource as it is.
func Holds(a *Agent, r *xds.Resource) bool {
	held := a.held.set(r.TypeURL)[r.Name]
	return held != nil && held.Version == r.Version
}

// OnDisk returns in which version the next agent would find a resource of the
// last good state, or "".
func OnDisk(a *Agent, typeURL, name string) string {
	d := a.rollout.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	next := lastGood{dir: d.files.dir, key: d.files.key, log: slog.New(slog.DiscardHandler)}
	best, _ := next.load()
	if best == nil {
		return ""
	}
	for _, r := range best.resources {
		if r.TypeURL == typeURL && r.Name == name {
			return r.Version
		}
	}
	return ""
}

// Regenerate has Envoy make new connections, by service.
func Regenerate(a *Agent, generations map[string]string) { a.rollout.regenerate(generations) }

// HeldAccounts returns how many resources with accounts an agent holds.
func HeldAccounts(a *Agent) int { return len(a.held.set(accountsType)) }

// Held is held.
type Held struct{ h *held }

func NewHeld() Held { return Held{newHeld()} }

func (h Held) Apply(typeURL string, put []*xds.Resource, removed ...string) {
	h.h.apply(typeURL, put, removed)
}

// Complete returns the id of the complete revision, or "", and a function that
// prunes what it does not need.
func (h Held) Complete() (id string, prune func()) {
	rev := h.h.complete()
	if rev == nil {
		return "", nil
	}
	return rev.id, func() { h.h.prune(namedTypes, rev) }
}

// Absent returns how many names are known not to exist.
func (h Held) Absent() int {
	n := 0
	for _, names := range h.h.absent {
		n += len(names)
	}
	return n
}

// Names returns the names of what is held of a type, sorted.
func (h Held) Names(typeURL string) []string { return slices.Sorted(maps.Keys(h.h.set(typeURL))) }

// Credentials is credentials.
type Credentials struct{ *credentials }

// NewCredentials returns credentials as an agent that just starts has them.
func NewCredentials(dir string, id identity.ID, client chancerypb.ControlPlaneClient, log *slog.Logger) Credentials {
	a := &Agent{config: Config{StateDir: dir, Identity: id, ControlPlane: "localhost:0", Logger: log}, log: log}
	a.problems = &problems{changed: func() {}}
	a.metrics = newMetrics(func() bool { return false })
	a.book = newBook(log, a.metrics.nacks)
	a.downstream = newDownstream(a.book, a.problems)
	c := a.newCredentials()
	c.client = client
	c.connect = func(context.Context) error { return nil }
	c.trust.changed = c.trustChanged
	if err := c.load(); err != nil {
		panic(err)
	}
	return Credentials{c}
}

func (c Credentials) Run(ctx context.Context) error         { return c.run(ctx) }
func (c Credentials) Enroll(ctx context.Context) error      { return c.enroll(ctx) }
func (c Credentials) WatchExpiry(ctx context.Context) error { return c.watchExpiry(ctx) }
func (c Credentials) Due() time.Time                        { return c.due() }
func (c Credentials) Problems() []string                    { return c.problems.list() }
func (c Credentials) JoinWith(j Join)                       { c.joiner.config = j }
func (c Credentials) TakeTrust(m *chancerypb.Trust) error   { return c.trust.take(m) }

// CSR is the next request for a certificate.
func (c Credentials) CSR(t *testing.T) []byte {
	t.Helper()
	key, err := pendingKey(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// Accept takes the answer to CSR.
func (c Credentials) Accept(ctx context.Context, resp *chancerypb.EnrollResponse) error {
	key, err := pendingKey(c.dir)
	if err != nil {
		return err
	}
	return c.accept(ctx, key, resp)
}

// Mints tells whether there is a key to mint Passports with, ready or not.
func (c Credentials) Mints() bool { return c.passports.signing.Load() != nil }

// Expires tells when the certificate ends; zero without one.
func (c Credentials) Expires() time.Time {
	if s := c.current.Load(); s != nil {
		return s.Expires()
	}
	return time.Time{}
}

// LastGood is lastGood with revisions that hold nothing.
type LastGood struct{ l *lastGood }

func OpenLastGood(dir string, log *slog.Logger) (*LastGood, error) {
	l, err := openLastGood(dir, log)
	return &LastGood{l}, err
}

func (l *LastGood) Begin(revision string) error  { return l.l.begin(&snapshot{revision: revision}) }
func (l *LastGood) Update(revision string) error { return l.l.update(&snapshot{revision: revision}) }
func (l *LastGood) Acknowledge() error           { return l.l.acknowledge() }
func (l *LastGood) Retreat() error               { return l.l.retreat("acknowledged") }
func (l *LastGood) RetreatFar() error            { return l.l.retreat("promoted") }
func (l *LastGood) Promote() error               { return l.l.promote() }
func (l *LastGood) Counter() uint64              { return l.l.counter }

// Load returns the revision that is loaded, or "".
func (l *LastGood) Load() string {
	if s, _ := l.l.load(); s != nil {
		return s.revision
	}
	return ""
}
