package ca

import (
	"cmp"
	"slices"
	"time"
)

// certificates are those of the ledger that have not ended, in memory.
type certificates struct {
	bySerial map[string]*held
	// lineages are the same by lineage.
	lineages map[string][]*held
	issued   uint64
}

// held is a certificate with its place in the order of issue.
type held struct {
	Certificate
	order uint64
	// leaf is the certificate itself, DER, once it is on disk that there is
	// one; nil when an earlier process signed it.
	leaf []byte
}

// isYoung reports whether a certificate is too good to be renewed.
func (c *Certificate) isYoung(now time.Time) bool {
	return c.Revoked.IsZero() && now.Before(c.Issued.Add(c.Expires.Sub(c.Issued)/2))
}

func newCertificates() *certificates {
	return &certificates{bySerial: map[string]*held{}, lineages: map[string][]*held{}}
}

func (cs *certificates) add(c Certificate) {
	if cs.bySerial[c.Serial] != nil {
		return // written twice, around a compaction
	}
	cs.issued++
	h := &held{Certificate: c, order: cs.issued}
	cs.bySerial[c.Serial] = h
	cs.lineages[c.Lineage] = append(cs.lineages[c.Lineage], h)
}

func (cs *certificates) find(serial string) *held { return cs.bySerial[serial] }

func (cs *certificates) drop(serial string) {
	c := cs.bySerial[serial]
	if c == nil {
		return
	}
	delete(cs.bySerial, serial)
	left := slices.DeleteFunc(cs.lineages[c.Lineage], func(h *held) bool { return h == c })
	if cs.lineages[c.Lineage] = left; len(left) == 0 {
		delete(cs.lineages, c.Lineage)
	}
}

// expire drops what has ended; revocations after their grace, if they may go.
func (cs *certificates) expire(now time.Time, revocations bool) {
	for serial, c := range cs.bySerial {
		end, may := c.Expires, true
		if !c.Revoked.IsZero() {
			end, may = end.Add(grace), revocations
		}
		if may && !end.After(now) {
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

// related returns the serials of all certificates in the lineage of one; none
// if there is no such certificate.
func (cs *certificates) related(serial string) (all []string) {
	c := cs.bySerial[serial]
	if c == nil {
		return nil
	}
	for _, h := range cs.lineages[c.Lineage] {
		all = append(all, h.Serial)
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
