package controlplane

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

var trustType = xds.TypeURL(&chancerypb.Trust{})

// trustName is the name of the one Trust, which all views have.
const trustName = "trust"

// trustRetry is how long after an error the authority's changes are taken
// again.
const trustRetry = time.Second

// followTrust tells everybody what the authority trusts, and keeps the control
// plane's own certificate fresh, until ctx ends. It calls ready each time that
// connections can be served.
func (s *Server) followTrust(ctx context.Context, ready func()) {
	select {
	case <-ctx.Done():
		return
	case <-s.opened:
	}
	for ctx.Err() == nil {
		authority, leaf := s.authority()
		changed := authority.Changed()
		again := trustRetry
		if err := s.takeTrust(authority); err != nil {
			s.log.ErrorContext(ctx, "trust not published", "err", err)
		} else if err := s.self.renew(authority, leaf); err != nil {
			s.log.ErrorContext(ctx, "certificate of the control plane not renewed", "err", err)
		} else {
			ready()
			again = max(time.Until(s.self.renews), trustRetry)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.After(again):
		}
	}
}

// takeTrust makes the authority's Trust that of all connections: those to come,
// those that are there, and what agents are sent.
func (s *Server) takeTrust(authority *ca.CA) error {
	s.trusting.Lock()
	defer s.trusting.Unlock()
	m := authority.Trust()
	if had := s.self.Trust(); had != nil && had.Sequence() == m.GetSequence() {
		return nil
	}
	trust, err := identity.ParseTrust(m)
	if err != nil {
		return err
	}
	r, err := xds.New(trustName, m)
	if err != nil {
		return err
	}
	s.self.trust.Store(trust)
	s.passports.retain(authority.Live)
	if n := s.door.Cut(func(p identity.Peer) bool { return p.Certificate != nil && !isGood(trust, p) }); n > 0 {
		s.metrics.connectionsCut.Add(float64(n))
		s.log.Warn("connections cut: their certificates are revoked", "connections", n, "sequence", trust.Sequence())
	}
	s.trusts.Apply([]*xds.Resource{r})
	return nil
}

// isGood reports whether the certificate of a peer, which was verified when it
// connected, would be again.
func isGood(trust *identity.Trust, p identity.Peer) bool {
	return !trust.IsRevoked(sha256.Sum256(p.Certificate.Raw)) &&
		trust.HasAuthority(hex.EncodeToString(p.Certificate.AuthorityKeyId)) &&
		time.Now().Before(p.Certificate.NotAfter)
}
