package controlplane

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/mesh"
)

// AuthorityConfig says how the certificate authority keeps its keys.
type AuthorityConfig struct {
	// Key encrypts them on disk; the zero value does not.
	Key ca.KeyProtection
	// Supplied is set when an operator keeps the root or the issuing
	// authorities elsewhere.
	Supplied *ca.Supplied
}

// sealedPause is how long a failure to decrypt is believed, in multiples of what it
// took to find: the server's lock is held meanwhile.
const sealedPause = 20

// sealed says that the authority does not decrypt.
type sealed struct {
	err   error
	until time.Time
}

// maxLeaf is the longest life that a document can give a certificate.
const maxLeaf = 90 * 24 * time.Hour

// openCA opens the certificate authority, once, and has it follow the document
// of the mesh.
func (s *Server) openCA(m *mesh.Mesh) error {
	lifetimes := ca.Lifetimes{Authority: m.Certificates.Authority, Root: m.Certificates.Root}
	// A report may be a little ahead of the last handshake with what it replaced.
	s.rotation.lastRequest.Store(int64(envoy.LastRequest(m) + time.Second))
	if s.ca != nil {
		if had := s.ca.TrustDomain(); had != m.TrustDomain {
			return fmt.Errorf("trust domain cannot change from %q to %q: start another control plane with another state directory", had, m.TrustDomain)
		}
		s.ca.SetLifetimes(lifetimes)
		s.leaf = m.Certificates.Leaf
		return nil
	}
	began := time.Now()
	if began.Before(s.sealed.until) {
		return s.sealed.err
	}
	authority, err := ca.Open(ca.Config{
		Dir:         filepath.Join(s.cfg.StateDir, "ca"),
		TrustDomain: m.TrustDomain,
		Lifetimes:   lifetimes,
		MaxLeaf:     maxLeaf,
		Key:         s.cfg.Authority.Key,
		Supplied:    s.cfg.Authority.Supplied,
		Logger:      s.cfg.Logger,
	})
	if errors.Is(err, ca.ErrSealed) {
		s.sealed = sealed{err, time.Now().Add(sealedPause * time.Since(began))}
	}
	if err != nil {
		return err
	}
	s.ca, s.leaf = authority, m.Certificates.Leaf
	s.passports.retain(authority.Live)
	close(s.opened)
	return nil
}

// authority returns the certificate authority, and how long workloads'
// certificates live. There is one as soon as there are views.
func (s *Server) authority() (authority *ca.CA, leaf time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ca, s.leaf
}

// closeCA lets another process have the authority.
func (s *Server) closeCA() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ca == nil {
		return nil
	}
	return s.ca.Close()
}
