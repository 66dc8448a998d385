package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
)

// self is who the control plane is to agents, and by what it knows them.
type self struct {
	svid  atomic.Pointer[identity.SVID]
	trust atomic.Pointer[identity.Trust]
	// renews is when the SVID is past half of its life; for renew alone.
	renews time.Time
}

var _ identity.Source = (*self)(nil)

// SVID implements identity.Source.
func (s *self) SVID() *identity.SVID { return s.svid.Load() }

// Trust implements identity.Source.
func (s *self) Trust() *identity.Trust { return s.trust.Load() }

// renew gets another SVID when the present one is past half of its life, or its
// authority is no longer the one that signs.
func (s *self) renew(authority *ca.CA, ttl time.Duration) error {
	now := s.SVID()
	if now != nil && time.Now().Before(s.renews) && s.isCurrent(now, authority) {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	want := ca.Request{ID: identity.ControlPlane, Key: key.Public(), TTL: ttl}
	// What an earlier process had goes on, so that lineages do not pile up.
	for _, c := range authority.Live() {
		if c.ID == identity.ControlPlane {
			want.Lineage, want.Parent = c.Lineage, c.Serial
		}
	}
	chain, certificate, err := authority.Sign(want)
	if err != nil {
		return fmt.Errorf("the control plane's own: %w", err)
	}
	next, err := identity.ParseSVID(identity.ControlPlane, key, chain)
	if err != nil {
		return err
	}
	s.svid.Store(next)
	s.renews = certificate.Issued.Add(certificate.Expires.Sub(certificate.Issued) / 2)
	return nil
}

// isCurrent reports whether the authority would still sign svid.
func (s *self) isCurrent(svid *identity.SVID, authority *ca.CA) bool {
	if s.Trust().IsRevoked(svid.Fingerprint()) {
		return false
	}
	return slices.ContainsFunc(authority.Authorities(), func(a ca.Authority) bool {
		return a.ID == svid.Authority() && a.State == ca.Active
	})
}
