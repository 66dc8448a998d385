package controlplane

import (
	"maps"
	"slices"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/mesh"
)

// Identity providers are shared by all views and belong to no revision, so the
// documents of providers are proven one by one: a version is accepted as soon
// as an agent could work with it. One that nobody accepted, and that some
// workload of every view that refers to it has rejected, goes back for
// everybody: no workload undoes it for others.

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
	present := s.providers.collection.Versions()
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

// refusals are whose workloads rejected a document with this content.
type refusals struct {
	hash string
	by   map[identity.ID]bool
}

// refuse notes that a workload of a view rejected the document as it is served,
// and returns who did so.
func (d *documents) refuse(id mesh.DocumentID, view identity.ID) map[identity.ID]bool {
	hash := hashOf(d.served.documents, id)
	if d.refused[id].hash != hash {
		d.refused[id] = refusals{hash: hash, by: map[identity.ID]bool{}}
	}
	d.refused[id].by[view] = true
	return d.refused[id].by
}

// providersRejected notes that an agent did not take these versions of identity
// providers, and returns the documents to blame.
func (s *Server) providersRejected(view identity.ID, versions map[string]string) []suspect {
	present := s.providers.collection.Versions()
	var names []string
	for name, version := range versions {
		if version != present[name] {
			continue
		}
		by := s.documents.refuse(providerID(name), view)
		takes := func(id identity.ID) bool { return !by[id] }
		if !slices.ContainsFunc(s.views.referring(providerType, name), takes) {
			names = append(names, name)
		}
	}
	return s.documents.suspects(names)
}

// forget drops what was said of providers that are gone.
func (d *documents) forget() {
	maps.DeleteFunc(d.refused, func(id mesh.DocumentID, _ refusals) bool { return d.served.documents.Get(id) == nil })
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
