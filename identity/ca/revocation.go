package ca

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chancery-mesh/chancery/identity"
)

// maxReason bounds what an operator can write into the ledger.
const maxReason = 256

// ErrUnknown says that nothing with this name is in the ledger.
var ErrUnknown = errors.New("not in the ledger")

// ErrUnsaved says that a revocation is in force, in memory and in Trust, but not
// on disk: a restart would forget it.
var ErrUnsaved = errors.New("revoked, but not on disk")

// RevokeSerial revokes the certificate with a serial, in lower-case hex, and
// all others of its lineage: whoever has a key may have renewed from any
// certificate before. It returns those that live once that is on disk and in
// Trust. Called again, it does the same. errors.Is finds [ErrUnknown]; and
// [ErrUnsaved], with which it returns them as well.
func (ca *CA) RevokeSerial(serial, reason string) ([]Certificate, error) {
	revoked, err := ca.revoke(reason, func() []string { return ca.certificates.related(serial) })
	if err != nil {
		err = fmt.Errorf("revoke certificate %q: %w", serial, err)
	}
	return revoked, err
}

// RevokeIdentity revokes all certificates of a workload. Only attestation
// gives it another. The rest is as with [CA.RevokeSerial].
func (ca *CA) RevokeIdentity(id identity.ID, reason string) ([]Certificate, error) {
	revoked, err := ca.revoke(reason, func() []string {
		var serials []string
		for _, c := range ca.certificates.list(func(c *Certificate) bool { return c.ID == id }) {
			serials = append(serials, c.Serial)
		}
		return serials
	})
	if err != nil {
		err = fmt.Errorf("revoke certificates of %s: %w", id, err)
	}
	return revoked, err
}

// revoke revokes what choose, which runs under mu, says. The mark is set in
// memory first, so that no renewal slips in before it is on disk; and stays also
// when the disk does not take it.
func (ca *CA) revoke(reason string, choose func() []string) ([]Certificate, error) {
	if len(reason) > maxReason {
		return nil, fmt.Errorf("reason of %d bytes: at most %d are kept", len(reason), maxReason)
	}
	ca.steps.Lock()
	defer ca.steps.Unlock()
	if ca.closed {
		return nil, errClosed
	}
	now := ca.cfg.Now()
	r := revocation{At: now.UTC().Truncate(time.Second), Reason: reason}
	ca.mu.Lock()
	chosen := slices.DeleteFunc(choose(), func(s string) bool { return !ca.certificates.find(s).Expires.After(now) })
	r.Serials = slices.DeleteFunc(slices.Clone(chosen), func(s string) bool { return !ca.certificates.find(s).Revoked.IsZero() })
	ca.certificates.revoke(r.Serials, r.At, reason)
	ca.mu.Unlock()
	if len(chosen) == 0 {
		return nil, fmt.Errorf("%w: no certificate of this name is alive", ErrUnknown)
	}
	if len(r.Serials) > 0 {
		ca.unsaved = append(ca.unsaved, r)
	}
	err := ca.saveRevocations()
	published := ca.publishTrust(true)
	if published != nil && !errors.Is(published, errTrustUnsaved) {
		return nil, fmt.Errorf("%w; nobody else knows of it: revoke again to publish it", errors.Join(err, published))
	}
	if err = errors.Join(err, published); err != nil {
		err = fmt.Errorf("%w: %w", ErrUnsaved, err)
	}
	wanted := map[string]bool{}
	for _, serial := range chosen {
		wanted[serial] = true
	}
	ca.mu.RLock()
	defer ca.mu.RUnlock()
	return ca.certificates.list(func(c *Certificate) bool { return wanted[c.Serial] }), err
}

// saveRevocations brings to the disk what is not there yet. The caller holds
// steps.
func (ca *CA) saveRevocations() error {
	for len(ca.unsaved) > 0 {
		if err := ca.ledger.add(entry{Revoked: &ca.unsaved[0]}).wait(); err != nil {
			return err
		}
		ca.unsaved = ca.unsaved[1:]
	}
	return nil
}
