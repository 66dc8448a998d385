package controlplane

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"time"

	"github.com/chancery-mesh/chancery/identity/ca"
)

// errNoAuthority is temporary: the trust domain comes with the documents.
var errNoAuthority = errors.New("there is no certificate authority until there are valid documents")

// AuthorityStatus tells of the certificate authority.
type AuthorityStatus struct {
	TrustDomain string `json:"trustDomain"`
	// Sequence of the trust that proxies are to have.
	Sequence uint64       `json:"sequence"`
	Roots    []RootStatus `json:"roots"`
	// Issuers are the authorities under the roots, oldest first.
	Issuers []IssuerStatus `json:"issuers"`
	// Certificates counts the good ones of workloads, the newest of each agent,
	// and Revoked those that were revoked and have not ended.
	Certificates int `json:"certificates"`
	Revoked      int `json:"revoked"`
	// Next are the steps of the rotation that are next.
	Next []StepStatus `json:"next"`
}

// RootStatus is one root of the trust bundle.
type RootStatus struct {
	Fingerprint ca.Fingerprint `json:"fingerprint"`
	Expires     time.Time      `json:"expires"`
	// Certificate in PEM.
	Certificate string `json:"certificate"`
}

// IssuerStatus is one issuing authority.
type IssuerStatus struct {
	ID    string         `json:"id"`
	State ca.State       `json:"state"`
	Since time.Time      `json:"since"`
	Root  ca.Fingerprint `json:"root"`
	// Expires is when it ends.
	Expires time.Time `json:"expires"`
	// Certificates counts the good ones that it signed, the newest of each agent.
	Certificates int `json:"certificates"`
}

// IdentityStatus is the newest good certificate of one agent.
type IdentityStatus struct {
	// Name is "gateway/<name>" or "service/<name>"; Instance is what its agent
	// calls itself, empty when it has not connected.
	Name      string    `json:"name"`
	Instance  string    `json:"instance,omitempty"`
	SPIFFEID  string    `json:"spiffeID"`
	Serial    string    `json:"serial"`
	Lineage   string    `json:"lineage"`
	Authority string    `json:"authority"`
	Issued    time.Time `json:"issued"`
	Expires   time.Time `json:"expires"`
	Connected bool      `json:"connected"`
}

// certificateAuthority returns the CA, once there is one.
func (s *Server) certificateAuthority() (*ca.CA, error) {
	authority, _ := s.authority()
	if authority == nil {
		return nil, errNoAuthority
	}
	return authority, nil
}

// authorities is what the rotation works on; nil until there is a CA.
func (s *Server) authorities() authorities {
	if authority, err := s.certificateAuthority(); err == nil {
		return authority
	}
	return nil
}

// recordStep takes down a step of the rotation.
func (s *Server) recordStep(step StepStatus, by string, err error) {
	reason := ""
	if len(step.Waiting) > 0 {
		reason = "without " + proxyCount(len(step.Waiting))
	}
	s.record("authority "+string(step.Step), step.Authority, by, reason, err)
}

// authorityStatus tells of the certificate authority.
func (s *Server) authorityStatus() (AuthorityStatus, error) {
	authority, err := s.certificateAuthority()
	if err != nil {
		return AuthorityStatus{}, err
	}
	trust, live := authority.Trust(), authority.Live()
	status := AuthorityStatus{
		TrustDomain:  authority.TrustDomain(),
		Sequence:     trust.GetSequence(),
		Certificates: len(live),
		Revoked:      len(trust.GetRevoked()),
		Next:         s.rotation.next(authority),
	}
	for _, der := range trust.GetRoots() {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return AuthorityStatus{}, err
		}
		status.Roots = append(status.Roots, RootStatus{
			Fingerprint: sha256.Sum256(der), Expires: root.NotAfter,
			Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		})
	}
	signed := map[string]int{}
	for _, c := range live {
		signed[c.Authority]++
	}
	for _, a := range authority.Authorities() {
		status.Issuers = append(status.Issuers, IssuerStatus{
			ID: a.ID, State: a.State, Since: a.Since, Root: a.Root, Expires: a.NotAfter, Certificates: signed[a.ID],
		})
	}
	return status, nil
}

// stepRequest asks for a step of the authority's rotation.
type stepRequest struct {
	// Authority may be empty when there is only one that it can be.
	Authority string `json:"authority,omitempty"`
	// Force does it whoever is not ready.
	Force bool `json:"force,omitempty"`
}

// prepareRequest asks for the next authority.
type prepareRequest struct {
	NewRoot bool `json:"newRoot,omitempty"`
}

func (s *Server) prepareAuthority(_ context.Context, q prepareRequest, by string) (AuthorityStatus, error) {
	authority, err := s.certificateAuthority()
	if err == nil {
		err = s.rotation.prepare(authority, q.NewRoot, by)
	}
	if err != nil {
		return AuthorityStatus{}, err
	}
	return s.authorityStatus()
}

func (s *Server) stepAuthority(step Step, q stepRequest, by string) (AuthorityStatus, error) {
	authority, err := s.certificateAuthority()
	if err == nil {
		err = s.rotation.command(authority, step, q.Authority, q.Force, by)
	}
	if err != nil {
		return AuthorityStatus{}, err
	}
	return s.authorityStatus()
}

// identities tells of every agent that has a good certificate, sorted by name
// and time of issue.
func (s *Server) identities() ([]IdentityStatus, error) {
	authority, err := s.certificateAuthority()
	if err != nil {
		return nil, err
	}
	all := []IdentityStatus{}
	for _, c := range authority.Live() {
		i := IdentityStatus{
			Name: c.ID.String(), SPIFFEID: c.SPIFFEID, Serial: c.Serial, Lineage: c.Lineage,
			Authority: c.Authority, Issued: c.Issued, Expires: c.Expires,
		}
		i.Instance, i.Connected = s.proxies.instance(c)
		all = append(all, i)
	}
	slices.SortStableFunc(all, func(a, b IdentityStatus) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// standing returns what proxies are judged by; nothing until there is a CA.
func (s *Server) standing() standing {
	standing := standing{now: time.Now(), states: map[string]ca.State{}, find: func(string) (ca.Certificate, bool) { return ca.Certificate{}, false }}
	standing.revocations, standing.revoked = s.revocations.newest()
	authority, err := s.certificateAuthority()
	if err != nil {
		return standing
	}
	standing.find = authority.Find
	standing.trust, standing.since = s.rotation.trust(authority)
	for _, a := range authority.Authorities() {
		if a.State != ca.Revoked {
			standing.states[a.ID] = a.State
		}
	}
	return standing
}

// live returns the lineages that have a good certificate.
func (s *Server) live() map[string]bool {
	live := map[string]bool{}
	if authority, err := s.certificateAuthority(); err == nil {
		for _, c := range authority.Live() {
			live[c.Lineage] = true
		}
	}
	return live
}

// instance returns what the agent that has a certificate calls itself, and
// whether it is connected.
func (ps *proxies) instance(c ca.Certificate) (name string, connected bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p := ps.byID[c.ID][c.Lineage]; p != nil {
		return p.instance, p.streams > 0
	}
	return "", false
}
