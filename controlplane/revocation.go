package controlplane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/attest"
	"github.com/chancery-mesh/chancery/identity/ca"
)

// revocationWait is how long the answer to a revocation waits for proxies.
const revocationWait = 2 * time.Second

// Revocation says whose certificates are revoked: one of Service, Gateway and
// Serial.
type Revocation struct {
	Service string `json:"service,omitempty"`
	Gateway string `json:"gateway,omitempty"`
	// Serial is in hex. All certificates of its lineage go with it: those that
	// one attestation began.
	Serial string `json:"serial,omitempty"`
	// Reason is kept in the ledger.
	Reason string `json:"reason,omitempty"`
}

// RevocationStatus is what a revocation came to.
type RevocationStatus struct {
	// Certificates that are revoked, empty if there were none.
	Certificates []RevokedCertificate `json:"certificates"`
	// Proxies counts the others that were connected, and Acknowledged those of
	// them that have taken it; Waiting are the rest.
	Proxies      int            `json:"proxies"`
	Acknowledged int            `json:"acknowledged"`
	Waiting      []WaitingProxy `json:"waiting,omitempty"`
	// Tokens are the IDs of join tokens that nobody has used, and with which the
	// workload could come back. Those that whoever is revoked came with are gone.
	Tokens []string `json:"tokens,omitempty"`
	// Unsaved says what is in force but not on disk, so that a restart would
	// forget it.
	Unsaved string `json:"unsaved,omitempty"`
}

// RevokedCertificate is one certificate that is revoked.
type RevokedCertificate struct {
	Name    string    `json:"name"`
	Serial  string    `json:"serial"`
	Expires time.Time `json:"expires"`
}

// workload returns whose certificates are revoked; the zero ID for a serial's.
func (r Revocation) workload() (identity.ID, error) {
	given := 0
	for _, s := range []string{r.Service, r.Gateway, r.Serial} {
		if s != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return identity.ID{}, invalidf("revoke one of a service, a gateway and a serial number")
	case r.Service != "":
		return serviceID(r.Service), nil
	case r.Gateway != "":
		return gatewayID(r.Gateway), nil
	}
	return identity.ID{}, nil
}

// revoke revokes certificates, and waits for the proxies to take it, but not for
// long. When it returns, no certificate that is revoked is taken by the control
// plane any more.
func (s *Server) revoke(ctx context.Context, r Revocation, by string) (RevocationStatus, error) {
	id, err := r.workload()
	if err != nil {
		return RevocationStatus{}, err
	}
	authority, err := s.certificateAuthority()
	if err != nil {
		return RevocationStatus{}, err
	}
	var revoked []ca.Certificate
	if id.IsZero() {
		revoked, err = revokeSerial(authority, r)
	} else {
		revoked, err = authority.RevokeIdentity(id, r.Reason)
	}
	if errors.Is(err, ca.ErrUnknown) && s.views.has(id) {
		err = nil // it has none; that is what was wanted
	}
	s.recordRevocation(r, revoked, by, err)
	unsaved := err
	if err != nil && !errors.Is(err, ca.ErrUnsaved) {
		return RevocationStatus{}, err
	}
	lineages := make([]string, 0, len(revoked))
	workloads := []identity.ID{id}
	status := RevocationStatus{Certificates: []RevokedCertificate{}}
	for _, c := range revoked {
		lineages = append(lineages, c.Lineage)
		workloads = append(workloads, c.ID)
		status.Certificates = append(status.Certificates, RevokedCertificate{Name: c.ID.String(), Serial: c.Serial, Expires: c.Expires})
	}
	s.metrics.revoked.Add(float64(len(revoked)))
	s.passports.revoke(lineages)
	if err := s.takeTrust(authority); err != nil {
		return RevocationStatus{}, fmt.Errorf("certificates are revoked, but that is not published: %w; revoke again", err)
	}
	ended := func(t attest.Token) bool { return t.Workload == id || slices.Contains(lineages, t.Lineage) }
	if unsaved = errors.Join(unsaved, s.tokens.DeleteUsed(ended, by)); unsaved != nil {
		status.Unsaved = unsaved.Error()
	}
	status.Tokens = s.tokensOf(workloads)

	ctx, cancel := context.WithTimeout(ctx, revocationWait)
	defer cancel()
	status.Proxies, status.Waiting = s.proxies.await(ctx, authority.Trust().GetSequence(), lineages)
	status.Acknowledged = status.Proxies - len(status.Waiting)
	return status, nil
}

// revokeSerial revokes by a serial number, which tools write in several ways.
func revokeSerial(authority *ca.CA, r Revocation) ([]ca.Certificate, error) {
	digits := strings.ToLower(strings.ReplaceAll(r.Serial, ":", ""))
	if strings.Trim(digits, "0123456789abcdef") != "" {
		return nil, invalidf("%q is no serial number in hex", r.Serial)
	}
	revoked, err := authority.RevokeSerial(strings.TrimLeft(digits, "0"), r.Reason)
	if errors.Is(err, ca.ErrUnknown) {
		return nil, notFoundf("%q: there is no certificate with this serial number, or it has ended", r.Serial)
	}
	return revoked, err
}

// recordRevocation says in log and audit what became of a revocation.
func (s *Server) recordRevocation(r Revocation, revoked []ca.Certificate, by string, err error) {
	subject := r.Serial
	if id, _ := r.workload(); !id.IsZero() {
		subject = id.String()
	}
	s.record("certificates revoked", subject, by, r.Reason, err)
	if len(revoked) > 0 {
		s.log.Warn("certificates revoked", "subject", subject, "certificates", len(revoked), "by", by, "reason", r.Reason)
	}
}

// await waits until all connected proxies, but for those of some lineages, have
// taken a trust of at least this sequence, or ctx ends. It returns how many
// there are, and which have not.
func (ps *proxies) await(ctx context.Context, sequence uint64, except []string) (connected int, waiting []WaitingProxy) {
	for {
		news := ps.changed()
		if connected, waiting = ps.before(sequence, except); len(waiting) == 0 {
			return connected, nil
		}
		select {
		case <-ctx.Done():
			return connected, waiting
		case <-news:
		}
	}
}

// before returns how many proxies are connected, and which of them have not
// taken a trust of this sequence.
func (ps *proxies) before(sequence uint64, except []string) (connected int, waiting []WaitingProxy) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for id, instances := range ps.byID {
		for _, p := range instances {
			if p.streams == 0 || slices.Contains(except, p.lineage) {
				continue
			}
			connected++
			if has := p.report.GetTrustSequence(); has < sequence {
				waiting = append(waiting, WaitingProxy{
					Name: id.String(), Instance: p.instance, Serial: p.report.GetSvidSerial(),
					Reason: fmt.Sprintf("has trust %d and not yet %d", has, sequence), Since: cmp.Or(p.reported, p.changed),
				})
			}
		}
	}
	slices.SortFunc(waiting, func(a, b WaitingProxy) int { return strings.Compare(a.String(), b.String()) })
	return connected, waiting
}
