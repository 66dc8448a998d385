package ca

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-mesh/chancery/identity"
)

// maxYoung bounds the certificates of one lineage that are not past half of
// their life. An agent has one or two: it renews at half, or when the authority
// is tainted, and repeats what got no answer. A thief could make any number.
const maxYoung = 8

// maxAttested bounds those of one lineage that one proof gave, shown again and
// again.
const maxAttested = 8

// ErrTooMany says that a lineage has more certificates than one agent needs.
var ErrTooMany = errors.New("its lineage has too many certificates that are not past half of their life")

// admit refuses a renewal of what is not there to be renewed. It returns the
// certificate that the same request got before, if that is still as good as new.
func (ca *CA) admit(req Request, by *issuer) (*held, error) {
	spki, err := x509.MarshalPKIXPublicKey(req.Key)
	if err != nil {
		return nil, err
	}
	key := sha256.Sum256(spki)
	ca.mu.RLock()
	defer ca.mu.RUnlock()
	if err := ca.checkLineage(req); err != nil {
		return nil, err
	}
	now := ca.cfg.Now()
	for _, c := range ca.certificates.lineages[req.Lineage] {
		if c.leaf != nil && c.Parent == req.Parent && c.Key == key && c.Authority == by.ID && c.isYoung(now) {
			again := *c
			return &again, nil
		}
	}
	return nil, ca.checkYoung(req, now)
}

// checkLineage refuses what does not go on with its lineage. The caller holds
// mu.
func (ca *CA) checkLineage(req Request) error {
	if req.Parent != "" {
		return ca.checkParent(req)
	}
	attested := 0
	for _, c := range ca.certificates.lineages[req.Lineage] {
		if c.Parent == "" {
			attested++
		}
		switch {
		case c.ID != req.ID:
			return fmt.Errorf("lineage %q is of %s", req.Lineage, c.ID)
		case !c.Revoked.IsZero():
			return fmt.Errorf("%w: lineage %s; attest again, with a new proof", ErrRevoked, req.Lineage)
		}
	}
	if attested >= maxAttested {
		return fmt.Errorf("%w: %d by one proof; attest with a new one", ErrTooMany, attested)
	}
	return nil
}

func (ca *CA) checkParent(req Request) error {
	parent := ca.certificates.find(req.Parent)
	switch {
	case parent == nil:
		return fmt.Errorf("certificate %q, which it would renew, is not in the ledger: attest again", req.Parent)
	case !parent.Expires.After(ca.cfg.Now()):
		return fmt.Errorf("certificate %q, which it would renew, ended at %v: attest again", req.Parent, parent.Expires)
	case !parent.Revoked.IsZero():
		return fmt.Errorf("%w: %s; attest again", ErrRevoked, req.Parent)
	case !ca.state.trusts(parent.Authority):
		return fmt.Errorf("%w: authority %s of %s; attest again", ErrRevoked, parent.Authority, req.Parent)
	case parent.ID != req.ID || parent.Lineage != req.Lineage:
		return fmt.Errorf("certificate %q is of %s and lineage %q, and renews no other", req.Parent, parent.ID, parent.Lineage)
	}
	return nil
}

// checkYoung refuses one certificate more than a lineage needs. Those of tainted
// authorities do not count: they had to be renewed at once. Nor does the control
// plane itself, which asks at each start. The caller holds mu.
func (ca *CA) checkYoung(req Request, now time.Time) error {
	young := 0
	for _, c := range ca.certificates.lineages[req.Lineage] {
		if c.isYoung(now) && ca.state.uses(c.Authority) {
			young++
		}
	}
	if young <= maxYoung || req.ID == identity.ControlPlane {
		return nil
	}
	return fmt.Errorf("%w: %d of lineage %s; if one agent did not ask for all of them, its key was stolen: revoke it", ErrTooMany, young, req.Lineage)
}

// record puts a certificate into the ledger, and returns when it is on disk.
// The lineage is looked at again, together with the entry: whoever revokes the
// parent either sees this child or keeps it from being.
func (ca *CA) record(cert Certificate, leaf []byte) error {
	req := Request{ID: cert.ID, Lineage: cert.Lineage, Parent: cert.Parent}
	ca.mu.Lock()
	err := errors.Join(ca.checkLineage(req), ca.checkYoung(req, cert.Issued))
	if err == nil && !ca.state.trusts(cert.Authority) {
		err = fmt.Errorf("%w: authority %s", ErrRevoked, cert.Authority)
	}
	if err != nil {
		ca.mu.Unlock()
		return err
	}
	written := ca.ledger.add(entry{Issued: &cert})
	ca.certificates.add(cert)
	ca.mu.Unlock()

	err = written.wait()
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if err != nil {
		ca.certificates.drop(cert.Serial)
	} else if c := ca.certificates.find(cert.Serial); c != nil {
		c.leaf = leaf
	}
	return err
}

// Fork returns another certificate that was renewed from the same one as c, for
// another key. An agent asks with one key until it has an answer, so somebody
// else has a copy of the key that both were renewed with.
func (ca *CA) Fork(c Certificate) (Certificate, bool) {
	ca.mu.RLock()
	defer ca.mu.RUnlock()
	for _, other := range ca.certificates.lineages[c.Lineage] {
		if c.Parent != "" && other.Parent == c.Parent && other.Key != c.Key && other.Key != (Fingerprint{}) {
			return other.Certificate, true
		}
	}
	return Certificate{}, false
}
