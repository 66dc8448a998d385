package ca

import "fmt"

// checkParent refuses a renewal of what is not there to be renewed.
func (ca *CA) checkParent(req Request) error {
	ca.mu.RLock()
	defer ca.mu.RUnlock()
	return ca.checkParentLocked(req)
}

func (ca *CA) checkParentLocked(req Request) error {
	if req.Parent == "" && req.Lineage == "" {
		return nil
	}
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

// record puts a certificate into the ledger, and returns when it is on disk.
// The parent is looked at again, together with the entry: whoever revokes the
// parent either sees this child or keeps it from being.
func (ca *CA) record(cert Certificate) error {
	ca.mu.Lock()
	if err := ca.checkParentLocked(Request{ID: cert.ID, Lineage: lineageOf(cert), Parent: cert.Parent}); err != nil {
		ca.mu.Unlock()
		return err
	}
	if !ca.state.trusts(cert.Authority) {
		ca.mu.Unlock()
		return fmt.Errorf("%w: authority %s", ErrRevoked, cert.Authority)
	}
	written := ca.ledger.add(entry{Issued: &cert})
	ca.certificates.add(cert)
	ca.mu.Unlock()

	if err := written.wait(); err != nil {
		ca.mu.Lock()
		defer ca.mu.Unlock()
		ca.certificates.drop(cert.Serial)
		return err
	}
	return nil
}

// lineageOf returns what a request for the certificate said.
func lineageOf(cert Certificate) string {
	if cert.Parent == "" {
		return ""
	}
	return cert.Lineage
}
