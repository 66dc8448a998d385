package sidecar

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Identity describes what an agent has to prove who its workload is, and to
// verify others.
type Identity struct {
	Identity string `json:"identity"`
	Instance string `json:"instance"`
	// Certificate is nil while there is none.
	Certificate *Certificate `json:"certificate,omitempty"`
	Trust       *TrustBundle `json:"trust,omitempty"`
	// Problems are what is wrong beside the agent, in words.
	Problems []string `json:"problems,omitempty"`
}

// Certificate describes the workload's X509-SVID.
type Certificate struct {
	SPIFFEID string `json:"spiffe_id"`
	// Serial number and issuing Authority are in hex.
	Serial    string    `json:"serial"`
	Authority string    `json:"authority"`
	Obtained  time.Time `json:"obtained"`
	Expires   time.Time `json:"expires"`
	// Fault says why others do not take it before that; empty when they do.
	Fault string `json:"fault,omitempty"`
	// Renews is when the agent asks for the next one, zero when it does all the
	// time.
	Renews time.Time `json:"renews,omitzero"`
	// EnvoySerial is that of the certificate that Envoy uses for new
	// connections; empty when it uses none that is known.
	EnvoySerial string `json:"envoy_serial,omitempty"`
	// PEM holds the chain, leaf first.
	PEM string `json:"pem"`
}

// TrustBundle describes what certificates are verified against.
type TrustBundle struct {
	TrustDomain string `json:"trust_domain"`
	Sequence    uint64 `json:"sequence"`
	// EnvoySequence is that of the bundle that Envoy verifies by.
	EnvoySequence uint64      `json:"envoy_sequence"`
	Roots         []Root      `json:"roots"`
	Authorities   []Authority `json:"authorities"`
	// Revoked is how many certificates are refused before their end.
	Revoked int `json:"revoked"`
	// PEM holds the roots.
	PEM string `json:"pem"`
}

// Root is one root of the trust bundle.
type Root struct {
	SHA256  string    `json:"sha256"`
	Expires time.Time `json:"expires"`
}

// Authority is one issuing authority.
type Authority struct {
	ID string `json:"id"`
	// Tainted says that what it signed is being replaced.
	Tainted bool `json:"tainted"`
}

// Identity returns what the agent has now.
func (a *Agent) Identity() Identity {
	return Identity{
		Identity:    a.config.Identity.String(),
		Instance:    a.config.Instance,
		Certificate: a.certificate(),
		Trust:       a.trustBundle(),
		Problems:    a.problems.list(),
	}
}

func (a *Agent) certificate() *Certificate {
	s := a.credentials.current.Load()
	if s == nil {
		return nil
	}
	d := &Certificate{
		SPIFFEID: s.SPIFFEID(), Serial: s.Serial(), Authority: s.Authority(),
		Obtained: s.obtained, Expires: s.Expires(), Renews: a.credentials.due(),
		PEM: string(encodeCertificates(s.Chain)),
	}
	if err := a.credentials.fault(); err != nil {
		d.Fault = err.Error()
	}
	if used := a.usedCertificate(); used != nil {
		d.EnvoySerial = used.Serial()
	}
	return d
}

func (a *Agent) trustBundle() *TrustBundle {
	t := a.credentials.Trust()
	if t == nil {
		return nil
	}
	d := &TrustBundle{
		TrustDomain: t.TrustDomain(), Sequence: t.Sequence(), EnvoySequence: a.usedTrust(),
		Revoked: len(t.Message().GetRevoked()), PEM: string(encodeCertificates(t.Roots())),
	}
	for _, root := range t.Roots() {
		sum := sha256.Sum256(root.Raw)
		d.Roots = append(d.Roots, Root{SHA256: hex.EncodeToString(sum[:]), Expires: root.NotAfter})
	}
	for _, authority := range t.Message().GetAuthorities() {
		d.Authorities = append(d.Authorities, Authority{ID: authority.GetId(), Tainted: authority.GetTainted()})
	}
	return d
}

// renewalTime is how long a renewal may take: there may be a second attempt.
const renewalTime = 2 * enrollTimeout

// Good returns an error that says what is wrong, unless the workload can prove
// who it is at that time, and will be able to.
func (id Identity) Good(now time.Time) error {
	c := id.Certificate
	switch {
	case c == nil:
		return errors.New("there is no certificate")
	case !now.Before(c.Expires):
		return fmt.Errorf("the certificate ended at %s", c.Expires.Format(time.RFC3339))
	case c.Fault != "":
		return errors.New(c.Fault)
	case !c.Renews.IsZero() && now.Sub(c.Renews) > renewalTime:
		return fmt.Errorf("the certificate was to be renewed at %s, and ends at %s",
			c.Renews.Format(time.RFC3339), c.Expires.Format(time.RFC3339))
	}
	return nil
}
