// Package ca is the mesh's certificate authority. It signs the certificates of
// workloads (X509-SVIDs, https://spiffe.io), remembers all that live in a
// ledger, and says in one Trust message what they are verified against: roots,
// issuing authorities, revocations.
//
//	authority, err := ca.Open(ca.Config{Dir: "/var/lib/chancery/ca", TrustDomain: "shop.example"})
//	chain, certificate, err := authority.Sign(ca.Request{ID: id, Key: public, TTL: 24 * time.Hour})
//
// A root signs issuing authorities (intermediates); one of them is active and
// signs workloads. An authority goes from prepared to active to old to tainted
// to revoked, so that a mesh can change it without a refused connection.
//
// Whatever a method reported is on disk: a crash at any moment loses no
// revocation, no authority that was ever published, and no serial number.
// Who may have a certificate is for the caller to know.
package ca

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// backdate is how far in the past a certificate's life begins, for peers
// whose clocks are behind.
const backdate = time.Minute

// Lifetimes say how long new authorities and self-made roots live.
type Lifetimes struct{ Authority, Root time.Duration }

// Config says where a CA is kept and whom it speaks for.
type Config struct {
	// Dir holds the CA's files; it is made with mode 0700 if need be.
	Dir         string
	TrustDomain string
	// Lifetimes default to 720 hours and 87600 hours.
	Lifetimes Lifetimes
	// MaxLeaf caps the life of a workload's certificate; default 24 hours.
	MaxLeaf time.Duration
	// Key encrypts the state file, which holds the private keys.
	Key KeyProtection
	// Supplied is set when an operator keeps the root, or issuing
	// authorities, elsewhere; otherwise the CA makes its own.
	Supplied *Supplied
	// Now defaults to time.Now.
	Now    func() time.Time
	Logger *slog.Logger

	disk         disk
	scryptLogN   int
	compactAbove int // how many lines too many the ledger may have
}

func (cfg Config) withDefaults() Config {
	cfg.Lifetimes.Authority = cmp.Or(cfg.Lifetimes.Authority, 30*24*time.Hour)
	cfg.Lifetimes.Root = cmp.Or(cfg.Lifetimes.Root, 10*365*24*time.Hour)
	cfg.MaxLeaf = cmp.Or(cfg.MaxLeaf, 24*time.Hour)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)).With("component", "ca")
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.scryptLogN = cmp.Or(cfg.scryptLogN, scryptLogN)
	cfg.compactAbove = cmp.Or(cfg.compactAbove, 1000)
	if cfg.disk == nil {
		cfg.disk = osDisk{}
	}
	return cfg
}

// CA is a certificate authority. It is safe for concurrent use.
type CA struct {
	cfg    Config
	lock   *os.File
	store  *store
	ledger *ledger
	clock  *clock

	// steps is held by whatever changes authorities, revocations or Trust:
	// one at a time, until it is on disk.
	steps  sync.Mutex
	closed bool
	// unsaved are revocations that are in force and not on disk, and
	// trustUnsaved says that the last Trust is not.
	unsaved      []revocation
	trustUnsaved bool
	// stride is how far the sequence of the next Trust is from that of the last.
	stride uint64

	// mu guards what follows, and is never held over the disk or a signature.
	mu           sync.RWMutex
	lifetimes    Lifetimes
	state        *state // immutable
	certificates *certificates

	trust   atomic.Pointer[chancerypb.Trust]
	changed atomic.Pointer[chan struct{}]
}

// Open opens the CA that is kept in the directory, and makes one there the
// first time. It takes a lock, so that no two processes hand out certificates
// of one authority; a CA of another trust domain is refused.
func Open(cfg Config) (*CA, error) {
	cfg = cfg.withDefaults()
	if _, err := identity.ParseSPIFFE(cfg.TrustDomain, "spiffe://"+cfg.TrustDomain+"/service/a"); err != nil || cfg.TrustDomain == "" {
		return nil, fmt.Errorf("open certificate authority: trust domain %q is not valid", cfg.TrustDomain)
	}
	if err := identity.PrivateDir(cfg.Dir); err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	ca := &CA{cfg: cfg, lock: lock, lifetimes: cfg.Lifetimes, clock: newClock(cfg), stride: 1}
	changed := make(chan struct{})
	ca.changed.Store(&changed)
	if err := ca.load(); err != nil {
		_ = ca.Close()
		return nil, fmt.Errorf("open certificate authority in %s: %w", cfg.Dir, err)
	}
	return ca, nil
}

// load reads what is on disk, or makes it, and publishes it.
func (ca *CA) load() error {
	var err error
	ca.store = newStore(ca.cfg)
	if ca.state, err = ca.store.read(); err != nil {
		return err
	}
	first := ca.state == nil
	if ca.ledger, ca.certificates, err = openLedger(ca.cfg, first); err != nil {
		return err
	}
	if first {
		if err := ca.makeFirst(); err != nil {
			return err
		}
	}
	if err := ca.readTrust(); err != nil {
		return err
	}
	ca.compareClock()
	return ca.Expire()
}

// makeFirst makes the first root and authority.
func (ca *CA) makeFirst() error {
	next := &state{trustDomain: ca.cfg.TrustDomain}
	a, err := ca.newAuthority(next, false)
	if err != nil {
		return err
	}
	next.authorities = append(next.authorities, a.with(Active, ca.cfg.Now(), 1))
	if err := ca.store.write(next); err != nil {
		return err
	}
	ca.state = next
	ca.cfg.Logger.Info("certificate authority made", "trust_domain", ca.cfg.TrustDomain, "authority", a.ID)
	return nil
}

// Close lets another process open the CA.
func (ca *CA) Close() error {
	ca.steps.Lock()
	defer ca.steps.Unlock()
	if ca.closed {
		return nil
	}
	ca.closed = true
	var err error
	if ca.ledger != nil {
		err = ca.ledger.close()
	}
	return errors.Join(err, unlock(ca.lock))
}

// TrustDomain returns the trust domain that the CA speaks for.
func (ca *CA) TrustDomain() string { return ca.cfg.TrustDomain }

// SetLifetimes sets how long authorities and roots live that are made from now
// on. What is not positive stays as it was.
func (ca *CA) SetLifetimes(l Lifetimes) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if l.Authority > 0 {
		ca.lifetimes.Authority = l.Authority
	}
	if l.Root > 0 {
		ca.lifetimes.Root = l.Root
	}
}

// snapshot returns the authorities as they are now.
func (ca *CA) snapshot() *state {
	ca.mu.RLock()
	defer ca.mu.RUnlock()
	return ca.state
}
