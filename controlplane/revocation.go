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
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// revocationWait is how long the answer to a revocation waits for proxies.
const revocationWait = 2 * time.Second

// Revocation says what is revoked: the certificates of one of Service, Gateway
// and Serial, or the credentials of a Target.
type Revocation struct {
	Service string `json:"service,omitempty"`
	Gateway string `json:"gateway,omitempty"`
	// Serial is in hex. All certificates of its lineage go with it: those that
	// one attestation began.
	Serial string `json:"serial,omitempty"`
	Target
	CredentialScope
	// Reason is kept in the ledger.
	Reason string `json:"reason,omitempty"`
}

// CredentialScope says which credentials of a [Target] are revoked.
type CredentialScope struct {
	// Provider is the name of the identity provider that vouches for them, or
	// Issuer its issuer; with neither, all are meant, also those that no provider
	// vouches for.
	Provider string `json:"provider,omitempty"`
	Issuer   string `json:"issuer,omitempty"`
	// Before is the last time of issue that is meant; default now.
	Before time.Time `json:"before,omitzero"`
	// For is how long they are refused, in the syntax of [time.ParseDuration]; by
	// default until none can be good any more.
	For string `json:"for,omitempty"`
}

// RevocationStatus is what a revocation came to.
type RevocationStatus struct {
	// Certificates that are revoked, empty if there were none.
	Certificates []RevokedCertificate `json:"certificates"`
	// Credentials are those that are refused, or, when that was undone, no
	// longer; nil if it was about certificates.
	Credentials *CredentialRevocation `json:"credentials,omitempty"`
	// Proxies counts the others that were connected, and Acknowledged those of
	// them that have taken it; Waiting are the rest.
	Proxies      int            `json:"proxies"`
	Acknowledged int            `json:"acknowledged"`
	Waiting      []WaitingProxy `json:"waiting,omitempty"`
	// Away are agents with a good certificate that are not connected. They take
	// it when they are back.
	Away []WaitingProxy `json:"away,omitempty"`
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

// check refuses what does not say one thing.
func (r Revocation) check() error {
	given := len(r.given())
	for _, s := range []string{r.Service, r.Gateway, r.Serial} {
		if s != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return invalidf("revoke one of a service, a gateway, a serial number, a subject, a jti, a client and a tenant")
	case r.JTI != "" && !r.Before.IsZero():
		return invalidf("a token's ID is that of one token: leave out before")
	case len(r.given()) == 0 && r.CredentialScope != CredentialScope{}:
		return invalidf("certificates are revoked for good, whoever vouches for their workload: leave out provider, issuer, before and for")
	}
	return nil
}

// workload returns whose certificates are revoked; the zero ID for a serial's.
func (r Revocation) workload() identity.ID {
	switch {
	case r.Service != "":
		return serviceID(r.Service)
	case r.Gateway != "":
		return gatewayID(r.Gateway)
	}
	return identity.ID{}
}

// revoke revokes certificates or credentials, and waits for the proxies to take
// it, but not for long.
func (s *Server) revoke(ctx context.Context, r Revocation, by string) (RevocationStatus, error) {
	if err := r.check(); err != nil {
		return RevocationStatus{}, err
	}
	if len(r.given()) > 0 {
		return s.revokeCredentials(ctx, r, by)
	}
	return s.revokeCertificates(ctx, r, by)
}

// revokeCertificates revokes certificates. When it returns, none that is revoked
// is taken by the control plane any more.
func (s *Server) revokeCertificates(ctx context.Context, r Revocation, by string) (RevocationStatus, error) {
	id := r.workload()
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

	s.awaitProxies(ctx, &status, taking{"trust", authority.Trust().GetSequence(), (*chancerypb.ReportRequest).GetTrustSequence}, lineages)
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
	if id := r.workload(); !id.IsZero() {
		subject = id.String()
	}
	s.record("certificates revoked", subject, by, r.Reason, err)
	if len(revoked) > 0 {
		s.log.Warn("certificates revoked", "subject", subject, "certificates", len(revoked), "by", by, "reason", r.Reason)
	}
}

// taking is what proxies report that they have taken, and are to.
type taking struct {
	what     string
	sequence uint64
	of       func(*chancerypb.ReportRequest) uint64
}

// awaitProxies completes a status: by who has taken it, of all but some
// lineages.
func (s *Server) awaitProxies(ctx context.Context, status *RevocationStatus, t taking, except []string) {
	ctx, cancel := context.WithTimeout(ctx, s.revocationWait)
	defer cancel()
	status.Proxies, status.Waiting = s.proxies.await(ctx, t, except)
	status.Acknowledged = status.Proxies - len(status.Waiting)
	if authority, err := s.certificateAuthority(); err == nil {
		status.Away = s.proxies.away(slices.DeleteFunc(authority.Live(), func(c ca.Certificate) bool { return !s.views.has(c.ID) }))
	}
}

// await waits until all connected proxies, but for those of some lineages, have
// taken what they are to, or ctx ends. It returns how many there are, and which
// have not.
func (ps *proxies) await(ctx context.Context, t taking, except []string) (connected int, waiting []WaitingProxy) {
	for {
		news := ps.changed()
		if connected, waiting = ps.before(t, except); len(waiting) == 0 {
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
// taken what they are to.
func (ps *proxies) before(t taking, except []string) (connected int, waiting []WaitingProxy) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for id, instances := range ps.byID {
		for _, p := range instances {
			if p.streams == 0 || slices.Contains(except, p.lineage) {
				continue
			}
			connected++
			if has := t.of(p.report); has < t.sequence {
				waiting = append(waiting, WaitingProxy{
					Name: id.String(), Instance: p.instance, Serial: p.report.GetSvidSerial(),
					Reason: fmt.Sprintf("has %s %d and not yet %d", t.what, has, t.sequence), Since: cmp.Or(p.reported, p.changed),
				})
			}
		}
	}
	sortProxies(waiting)
	return connected, waiting
}

// away returns who of those that have these certificates is not connected.
func (ps *proxies) away(live []ca.Certificate) (away []WaitingProxy) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, c := range live {
		p := ps.byID[c.ID][c.Lineage]
		if p != nil && p.streams > 0 {
			continue
		}
		w := WaitingProxy{Name: c.ID.String(), Serial: c.Serial, Expires: c.Expires, Away: true, Reason: "is away", Since: c.Issued}
		if p != nil {
			w.Instance, w.Since = p.instance, p.changed
		}
		away = append(away, w)
	}
	sortProxies(away)
	return away
}

func sortProxies(list []WaitingProxy) {
	slices.SortFunc(list, func(a, b WaitingProxy) int { return strings.Compare(a.String(), b.String()) })
}
