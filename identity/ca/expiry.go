package ca

import (
	"fmt"
	"slices"
	"time"
)

// grace is how long a revocation outlives its certificate, for peers whose
// clocks are behind and to whom it has not ended.
const grace = time.Hour

// Expire drops what has ended: certificates, an hour later their revocations,
// authorities (but never the active one), and lines of the ledger that say
// nothing any more. It drops nothing while the clock is not to be believed, and
// revocations only after an hour in which it was. It also writes and publishes
// what an earlier error kept from that. Call it now and then.
func (ca *CA) Expire() error {
	ca.steps.Lock()
	defer ca.steps.Unlock()
	if ca.closed {
		return errClosed
	}
	if err := ca.saveRevocations(); err != nil {
		return err
	}
	jump, settled := ca.clock.look()
	if jump != 0 {
		return ca.publish()
	}
	now := ca.cfg.Now()
	ca.mu.Lock()
	ca.certificates.expire(now, settled)
	ca.mu.Unlock()
	if err := ca.expireAuthorities(now); err != nil {
		return err
	}
	if err := ca.publish(); err != nil {
		return err
	}
	return ca.compact()
}

func (ca *CA) expireAuthorities(now time.Time) error {
	current := ca.snapshot()
	next := *current
	next.authorities = slices.DeleteFunc(slices.Clone(current.authorities), func(i *issuer) bool {
		return i.State != Active && !i.NotAfter.After(now)
	})
	if len(next.authorities) == len(current.authorities) {
		return nil
	}
	if err := ca.replace(&next); err != nil {
		return fmt.Errorf("expire authorities: %w", err)
	}
	return nil
}

// compact writes the ledger anew when most of it says nothing any more.
func (ca *CA) compact() error {
	if ca.ledger.length() <= 2*ca.count()+ca.cfg.compactAbove {
		return nil
	}
	// Entries that come meanwhile are in memory before they are in the
	// ledger: they may be written twice, which reads the same, and are never
	// lost.
	err := ca.ledger.compact(func() ([]byte, int) {
		ca.mu.RLock()
		defer ca.mu.RUnlock()
		return ca.certificates.lines(), len(ca.certificates.bySerial)
	})
	if err != nil {
		return fmt.Errorf("compact ledger: %w", err)
	}
	return nil
}

func (ca *CA) count() int {
	ca.mu.RLock()
	defer ca.mu.RUnlock()
	return len(ca.certificates.bySerial)
}
