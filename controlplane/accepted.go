package controlplane

import (
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/mesh"
)

// Identity providers are shared by all views and belong to no revision, so the
// documents of providers are proven one by one: a version is accepted as soon
// as an agent could work with it. One that is rejected, and was not accepted by
// anybody, goes back for everybody.

// everybody stands in the place of a view.
var everybody = identity.ID{}

func providerID(name string) mesh.DocumentID {
	return mesh.DocumentID{Kind: mesh.KindIdentityProvider, Name: name}
}

// providersAccepted notes that an agent took these versions of identity
// providers.
func (s *Server) providersAccepted(versions map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	present := s.keyring.collection.Versions()
	for name, version := range versions {
		if version == present[name] && s.documents.accept(providerID(name)) {
			s.saved.changed()
		}
	}
}

// accept notes that the document is good as it is served, and reports whether
// that is news.
func (d *documents) accept(id mesh.DocumentID) bool {
	served := d.served.documents.Get(id)
	if served == nil || hashOf(d.accepted, id) == served.Hash {
		return false
	}
	d.accepted = d.accepted.With(served)
	return true
}

// forget drops what was accepted of providers that are gone.
func (d *documents) forget() {
	for _, accepted := range d.accepted.All() {
		if d.served.documents.Get(accepted.ID) == nil {
			d.accepted = d.accepted.Without(accepted.ID)
		}
	}
}

// suspects returns the documents of providers that may have caused a
// rejection of these: those that nobody has accepted as they are.
func (d *documents) suspects(providers []string) []suspect {
	var suspects []suspect
	for _, name := range providers {
		id := providerID(name)
		if now := hashOf(d.served.documents, id); now != "" && now != hashOf(d.accepted, id) {
			suspects = append(suspects, suspect{id: id, hash: now, previous: d.accepted.Get(id)})
		}
	}
	return suspects
}
