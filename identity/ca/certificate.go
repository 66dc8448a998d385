package ca

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"time"

	"github.com/chancery-mesh/chancery/identity"
)

// Certificate is what the ledger knows of one certificate of a workload.
type Certificate struct {
	// Serial is the serial number in lower-case hex.
	Serial string `json:"serial"`
	// Lineage is shared by all certificates that go back to one attestation;
	// Parent is the serial of the one that this renewed, empty for the first.
	Lineage string `json:"lineage"`
	Parent  string `json:"parent,omitempty"`
	// Authority is the ID of the one that signed.
	Authority   string      `json:"authority"`
	ID          identity.ID `json:"-"`
	SPIFFEID    string      `json:"spiffe_id"`
	Issued      time.Time   `json:"issued"`
	Expires     time.Time   `json:"expires"`
	Fingerprint Fingerprint `json:"fingerprint"`
	// Key is the SHA-256 of the public key (SPKI).
	Key Fingerprint `json:"key,omitzero"`
	// Revoked is when, zero for never, and Reason what the operator said.
	Revoked time.Time `json:"revoked,omitzero"`
	Reason  string    `json:"reason,omitempty"`
}

func newCertificate(leaf *x509.Certificate, req Request, authority string, now time.Time) Certificate {
	serial := leaf.SerialNumber.Text(16)
	return Certificate{
		Serial: serial,
		// A lineage has the name of its first certificate.
		Lineage:     cmp.Or(req.Lineage, serial),
		Parent:      req.Parent,
		Authority:   authority,
		ID:          req.ID,
		SPIFFEID:    leaf.URIs[0].String(),
		Issued:      now.UTC(),
		Expires:     leaf.NotAfter,
		Fingerprint: sha256.Sum256(leaf.Raw),
		Key:         sha256.Sum256(leaf.RawSubjectPublicKeyInfo),
	}
}

// parseID sets the ID of a certificate that was read from disk.
func (c *Certificate) parseID(trustDomain string) (err error) {
	c.ID, err = identity.ParseSPIFFE(trustDomain, c.SPIFFEID)
	return err
}

// Live returns the newest certificate of each lineage that has one which is
// good now, in the order of their issue.
func (ca *CA) Live() []Certificate {
	ca.mu.RLock()
	defer ca.mu.RUnlock()
	now := ca.cfg.Now()
	newest := map[string]*held{}
	for _, c := range ca.certificates.bySerial {
		if !c.Revoked.IsZero() || !c.Expires.After(now) || !ca.state.trusts(c.Authority) {
			continue
		}
		if best := newest[c.Lineage]; best == nil || best.order < c.order {
			newest[c.Lineage] = c
		}
	}
	return ca.certificates.list(func(c *Certificate) bool { return newest[c.Lineage] != nil && newest[c.Lineage].Serial == c.Serial })
}

// Find returns what the ledger knows of a certificate that has not ended, by
// its serial in lower-case hex.
func (ca *CA) Find(serial string) (Certificate, bool) {
	ca.mu.RLock()
	defer ca.mu.RUnlock()
	c := ca.certificates.find(serial)
	if c == nil || !c.Expires.After(ca.cfg.Now()) {
		return Certificate{}, false
	}
	return c.Certificate, true
}
