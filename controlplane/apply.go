package controlplane

import (
	"maps"
	"slices"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/mesh"
)

// documentsRead takes what the directory holds now. What is not served stays as
// it was; a process that has never served any begins with the last good ones of
// the one before.
func (s *Server) documentsRead(docs mesh.Documents, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.documents.pending = nil
	if err == nil {
		if err = s.serve(docs); err == nil {
			return
		}
		s.documents.pending = &docs
	}
	s.documents.faults = err
	s.metrics.documentsValid.Set(0)
	s.metrics.documentsBad.Inc()
	s.log.Error("documents not valid: the last good ones stay", "dir", s.cfg.Documents, "err", err)
	s.serveEarlier()
}

// serve serves valid documents of the directory.
func (s *Server) serve(docs mesh.Documents) error {
	before := s.documents
	s.documents.take(docs)
	s.documents.restored = false
	if err := s.apply(s.documents.quarantine); err != nil {
		s.documents = before
		return err
	}
	s.metrics.documentsValid.Set(1)
	s.log.Info("documents served", "dir", s.cfg.Documents, "documents", len(docs.All()))
	return nil
}

// serveEarlier serves the documents of an earlier process, if nothing is served
// and there are any.
func (s *Server) serveEarlier() {
	if s.documents.served != nil || len(s.documents.earlier.All()) == 0 {
		return
	}
	faults, pending := s.documents.faults, s.documents.pending
	s.documents.take(s.documents.earlier)
	err := s.apply(s.documents.quarantine)
	s.documents.faults, s.documents.pending, s.documents.restored = faults, pending, err == nil
	if err != nil {
		s.log.Error("last good documents not restored", "err", err)
		return
	}
	s.log.Warn("last good documents of an earlier process are served", "path", s.saved.path)
}

// retry serves what could not be served for a reason that may have passed: a
// full disk, say.
func (s *Server) retry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if docs := s.documents.pending; docs != nil {
		if err := s.serve(*docs); err != nil {
			s.documents.faults = err
		}
	}
	if s.documents.faults != nil {
		s.serveEarlier()
	}
}

// apply serves what was read, but for a quarantine. On an error everything
// stays as it was.
func (s *Server) apply(q quarantine) error {
	c, err := s.documents.content(q, everybody)
	if err != nil {
		return err
	}
	m := c.mesh
	if err := s.openCA(m); err != nil {
		return err
	}
	next, err := s.views.plan(workloads(m), func(id identity.ID) (*content, error) {
		if len(q[id]) == 0 {
			return c, nil
		}
		return s.documents.content(q, id)
	})
	if err != nil {
		return err
	}
	s.documents.serve(c)
	s.documents.quarantine = q
	s.metrics.quarantined.Set(float64(q.size()))

	// What views refer to is there before they are.
	s.providers.Use(m.Providers)
	s.accounts.Apply(slices.AppendSeq(s.views.accounts(), maps.Values(c.accounts)))
	for _, g := range next {
		s.accounts.Apply(g.accounts)
	}
	s.passports.use(m.TrustDomain, scopesOf(m), m.PassportLifetime+scopeGrace)
	s.revocations.use(m.Providers, m.PassportLifetime)
	needed := s.views.services()
	for _, g := range next {
		needed = append(needed, g.needs[resource.EndpointType]...)
	}
	s.endpoints.use(needed, m)
	s.views.set(next)
	s.settle(m)
	s.saved.changed()
	return nil
}

// settle forgets what no view refers to any more.
func (s *Server) settle(m *mesh.Mesh) {
	s.accounts.Replace(slices.AppendSeq(s.views.accounts(), maps.Values(s.documents.served.accounts)))
	services := s.views.services()
	s.endpoints.use(services, m)
	if !slices.Equal(services, s.wanted) {
		s.wanted = services
		s.cfg.Registry.Want(services)
	}
}

// acknowledged notes that a proxy took a revision whole.
func (s *Server) acknowledged(id identity.ID, revision string) {
	if !s.views.acknowledged(id, revision) {
		return
	}
	s.saved.changed()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(nil)
}
