package ca

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"slices"
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
	}
}

// parseID sets the ID of a certificate that was read from disk.
func (c *Certificate) parseID(trustDomain string) (err error) {
	c.ID, err = identity.ParseSPIFFE(trustDomain, c.SPIFFEID)
	return err
}

// certificates are those of the ledger that have not ended, in memory.
type certificates struct {
	bySerial map[string]*held
	children map[string][]string // serials by parent's serial
	issued   uint64
}

// held is a certificate with its place in the order of issue.
type held struct {
	Certificate
	order uint64
}

func newCertificates() *certificates {
	return &certificates{bySerial: map[string]*held{}, children: map[string][]string{}}
}

func (cs *certificates) add(c Certificate) {
	if cs.bySerial[c.Serial] != nil {
		return // written twice, around a compaction
	}
	cs.issued++
	cs.bySerial[c.Serial] = &held{Certificate: c, order: cs.issued}
	if c.Parent != "" {
		cs.children[c.Parent] = append(cs.children[c.Parent], c.Serial)
	}
}

func (cs *certificates) find(serial string) *held { return cs.bySerial[serial] }

func (cs *certificates) drop(serial string) {
	c := cs.bySerial[serial]
	if c == nil {
		return
	}
	delete(cs.bySerial, serial)
	left := slices.DeleteFunc(cs.children[c.Parent], func(s string) bool { return s == serial })
	if cs.children[c.Parent] = left; len(left) == 0 {
		delete(cs.children, c.Parent)
	}
}

// expire drops what has ended, and revocations after their grace.
func (cs *certificates) expire(now time.Time) {
	for serial, c := range cs.bySerial {
		end := c.Expires
		if !c.Revoked.IsZero() {
			end = end.Add(grace)
		}
		if !end.After(now) {
			cs.drop(serial)
		}
	}
}

// revoke marks certificates; a zero time takes the mark away.
func (cs *certificates) revoke(serials []string, at time.Time, reason string) {
	for _, serial := range serials {
		if c := cs.bySerial[serial]; c != nil {
			c.Revoked, c.Reason = at, reason
		}
	}
}

// descendants returns a serial and all that were renewed from it.
func (cs *certificates) descendants(serial string) []string {
	all := []string{serial}
	for n := 0; n < len(all); n++ {
		all = append(all, cs.children[all[n]]...)
	}
	return all
}

// list returns the certificates that keep says, in the order of their issue.
func (cs *certificates) list(keep func(*Certificate) bool) []Certificate {
	var kept []*held
	for _, c := range cs.bySerial {
		if keep(&c.Certificate) {
			kept = append(kept, c)
		}
	}
	slices.SortFunc(kept, func(a, b *held) int { return cmp.Compare(a.order, b.order) })
	all := make([]Certificate, len(kept))
	for n, c := range kept {
		all[n] = c.Certificate
	}
	return all
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
