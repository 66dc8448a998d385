package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// enrollTimeout bounds one attempt at a certificate.
const enrollTimeout = 5 * time.Second

// Subjects of problems.
const (
	problemCertificate  = "certificate"
	problemRenewal      = "certificate renewal"
	problemControlPlane = "control plane"
)

var errNoCertificate = errors.New("no certificate yet")

// credentials keeps the workload's SVID, serves it to Envoy, and renews it in
// time: with the certificate before while that is good, and else by proving
// once more who the workload is. The key of each certificate is made here and
// never leaves, but for the Envoy beside.
//
// It implements identity.Source, for connections to the control plane.
type credentials struct {
	dir     string
	id      identity.ID
	client  chancerypb.ControlPlaneClient
	joiner  *joiner
	secrets *xds.Collection
	trust   *trust
	// passports are nil but at a gateway.
	passports *passportKeys
	problems  *problems
	metrics   *metrics
	log       *slog.Logger
	// connect is called with each new certificate.
	connect func(context.Context) error
	// touch has the control plane told.
	touch func()

	current atomic.Pointer[certificate]
	// served are the certificates that Envoy was given.
	served recent[*certificate]
	// refused says that the control plane does not take the certificate.
	refused atomic.Bool
	// wake has run look at once whether there is something to do.
	wake chan struct{}

	mu      sync.Mutex
	changed chan struct{}
	failed  error
}

var _ identity.Source = (*credentials)(nil)

// SVID implements identity.Source.
func (c *credentials) SVID() *identity.SVID {
	if s := c.current.Load(); s != nil {
		return s.SVID
	}
	return nil
}

// Trust implements identity.Source.
func (c *credentials) Trust() *identity.Trust { return c.trust.current.Load() }

// watch returns a channel that is closed at the next change of SVID or Trust.
func (c *credentials) watch() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

func (c *credentials) notify() {
	c.mu.Lock()
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	c.touch()
}

// load takes over what an earlier agent left. Only the Passport key is required
// to be sound: a certificate can be had again.
func (c *credentials) load() error {
	if c.passports != nil {
		if err := c.passports.load(); err != nil {
			return err
		}
	}
	if err := c.trust.load(); err != nil {
		return err
	}
	s, err := loadCertificate(c.dir, c.id)
	if err == nil {
		return c.serve(s)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("certificate on disk not used", "err", err)
	}
	return nil
}

// run has a certificate at all times, until ctx ends.
func (c *credentials) run(ctx context.Context) error {
	if c.current.Load() != nil {
		if err := c.connect(ctx); err != nil {
			return err
		}
	}
	for c.rest(ctx, time.Until(c.due())) {
		if err := c.obtain(ctx); err != nil {
			return nil //nolint:nilerr // ctx ended
		}
	}
	return nil
}

// rest sleeps unless something calls for a look, and reports whether ctx lives.
func (c *credentials) rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.wake:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// look has run see at once whether a certificate is due.
func (c *credentials) look() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// due returns when to ask for the next certificate.
func (c *credentials) due() time.Time {
	s, t := c.current.Load(), c.Trust()
	switch {
	case s == nil || c.lapsed() != nil || c.refused.Load() || !c.isEndorsed():
		return time.Time{}
	case t != nil && t.IsTainted(s.Authority()):
		return c.trust.since().Add(s.spread)
	}
	return s.renews
}

// isEndorsed reports whether there is a key for Passports, where there should
// be one.
func (c *credentials) isEndorsed() bool {
	if c.passports == nil {
		return true
	}
	c.passports.mu.Lock()
	defer c.passports.mu.Unlock()
	return c.passports.newest((*passportKey).isEndorsed) != nil
}

// lapsed says why the certificate is of no use any more, if so.
func (c *credentials) lapsed() error {
	s, t := c.current.Load(), c.Trust()
	switch {
	case s == nil:
		return errNoCertificate
	case !time.Now().Before(s.Expires()):
		return fmt.Errorf("certificate %s ended at %s", s.Serial(), s.Expires().Format(time.RFC3339))
	case t == nil:
		return errors.New("there is no trust bundle to verify the control plane by")
	}
	return c.revoked(s.SVID, t)
}

// fault says why others do not take the certificate, if so.
func (c *credentials) fault() error {
	if err := c.lapsed(); err != nil {
		return err
	}
	if s := c.current.Load(); c.refused.Load() {
		return fmt.Errorf("the control plane refuses certificate %s, which may be revoked", s.Serial())
	}
	return nil
}

// revoked says that a certificate was revoked, if so.
func (*credentials) revoked(s *identity.SVID, t *identity.Trust) error {
	switch {
	case t.IsRevoked(s.Fingerprint()):
		return fmt.Errorf("certificate %s was revoked", s.Serial())
	case !t.HasAuthority(s.Authority()):
		return fmt.Errorf("certificate %s is of authority %s, which was revoked", s.Serial(), s.Authority())
	}
	return nil
}

// trustChanged makes sure that nothing is signed with keys that were revoked,
// and has run see what else is due.
func (c *credentials) trustChanged() {
	s, t := c.current.Load(), c.Trust()
	if s != nil && t != nil {
		if err := c.revoked(s.SVID, t); err != nil {
			c.log.Error("this workload was revoked", "err", err)
			if c.passports != nil {
				err = errors.Join(err, c.passports.forget())
			}
			c.problems.set(problemCertificate, err.Error())
		}
	}
	c.notify()
	c.look()
}

// obtain tries until it has the certificate that is due. Pauses grow with the
// time that is left: a control plane that comes back is not run over.
func (c *credentials) obtain(ctx context.Context) error {
	pause := backoff{min: 100 * time.Millisecond}
	for time.Until(c.due()) <= 0 {
		err := c.enroll(ctx)
		if err == nil && time.Until(c.due()) <= 0 {
			err = errors.New("the certificate that came is to be renewed at once; see the control plane's log")
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		before := c.failure()
		c.fail(err)
		if err == nil {
			return nil
		}
		level := slog.LevelError
		if pause.max = c.patience(); errors.Is(err, errNoToken) || errors.Is(err, errNoProof) {
			pause.max = time.Second // nobody is asked until there is one
			if before != nil && before.Error() == err.Error() {
				level = slog.LevelDebug // and this was said
			}
		}
		c.log.Log(ctx, level, "no new certificate", "err", err)
		if !pause.wait(ctx) {
			return ctx.Err()
		}
	}
	return nil
}

// patience is the longest pause between two attempts.
func (c *credentials) patience() time.Duration {
	s := c.current.Load()
	if s == nil {
		return 5 * time.Second
	}
	return min(max(time.Until(s.Expires())/20, 2*time.Second), time.Minute)
}

// fail keeps the last error for those who ask why.
func (c *credentials) fail(err error) {
	c.mu.Lock()
	c.failed = err
	c.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
	}
	c.problems.set(problemRenewal, text)
}

// failure returns why the last attempt at a certificate failed, nil if it did
// not.
func (c *credentials) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// handshake returns who is told why a connection to the control plane that
// begins now failed. What becomes of it when there is a newer certificate does
// not matter.
func (c *credentials) handshake() func(err error, refused bool) {
	used := c.current.Load()
	return func(err error, refused bool) {
		if c.current.Load() != used {
			return
		}
		c.problems.set(problemControlPlane, err.Error())
		if refused && !c.refused.Swap(true) {
			c.log.Error("control plane refuses the certificate", "err", err)
			c.look()
		}
	}
}

// welcomed is told that the control plane answers.
func (c *credentials) welcomed() {
	c.problems.set(problemControlPlane, "")
	c.refused.Store(false)
}

// serve hands an SVID to Envoy, which uses it for new connections.
func (c *credentials) serve(s *certificate) error {
	chain, key, err := s.pem()
	if err != nil {
		return err
	}
	r, err := xds.New(envoy.SecretSVID, envoy.KeyPair(envoy.SecretSVID, chain, key))
	if err != nil {
		return err
	}
	c.served.put(r.Version, s)
	c.secrets.Apply([]*xds.Resource{r})
	c.current.Store(s)
	c.metrics.certificate(s)
	c.problems.set(problemCertificate, "")
	c.notify()
	return nil
}
