package controlplane

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/mesh"
)

// rejection is a NACK: some proxy did not take some resources.
type rejection struct {
	id       identity.ID
	instance string
	// by is who said so: "agent" or "envoy".
	by string
	// revision is the view's that the resources were of; empty when it is not
	// known.
	revision string
	typeURL  string
	names    []string
	text     string
}

func (r rejection) proxy() string { return strings.TrimSuffix(r.id.String()+"/"+r.instance, "/") }

// suspect is a document that may be to blame, and its last version that was
// not; nil when there is none.
type suspect struct {
	id       mesh.DocumentID
	hash     string
	previous *mesh.Document
}

// suspects returns whom to blame for a rejection: the likely ones, and all of
// them, for when the likely ones cannot be taken out alone. Nobody is to blame
// when the rejected generation is no longer the latest. Nobody is, either, when
// proxies took it before: no document has changed since, so it is the proxy.
func (vs *views) suspects(r rejection) (likely, all []suspect) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	v := vs.byID[r.id]
	if v == nil || r.revision != v.latest.revision {
		return nil, nil
	}
	return v.suspects(r)
}

func (v *view) suspects(r rejection) (likely, all []suspect) {
	ids, named := v.latest.suspects(r.typeURL, r.names, r.text)
	if v.proven == nil {
		// Nothing tells old from new. Only what the proxy itself names is
		// taken out, and never the view's own document: that would take the
		// proxies' configuration away.
		if named {
			for _, id := range ids {
				if d := v.latest.documents.Get(id); d != nil && id.Kind != mesh.KindMesh && id != v.document() {
					likely = append(likely, suspect{id: id, hash: d.Hash})
				}
			}
		}
		return likely, likely
	}
	for _, d := range v.latest.documents.All() {
		before := v.proven.documents.Get(d.ID)
		if before != nil && before.Hash == d.Hash {
			continue
		}
		s := suspect{id: d.ID, hash: d.Hash, previous: before}
		all = append(all, s)
		if slices.Contains(ids, d.ID) {
			likely = append(likely, s)
		}
	}
	if len(likely) == 0 {
		// Among them is what is named though it was taken back already: the
		// first guess was not it, or not all of it.
		likely = all
	}
	return likely, all
}

// document returns the one that the view is of.
func (v *view) document() mesh.DocumentID {
	if v.id.Role == identity.RoleGateway {
		return mesh.DocumentID{Kind: mesh.KindGateway, Name: v.id.Name}
	}
	return mesh.DocumentID{Kind: mesh.KindService, Name: v.id.Name}
}

// rejected takes a NACK: it is counted and told, and the documents that caused
// it are put into quarantine, so that everything else goes on.
func (s *Server) rejected(r rejection) {
	s.metrics.nacks.WithLabelValues(s.knownType(r.typeURL), r.by).Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	likely, all := s.views.suspects(r)
	s.log.Error("resources rejected", "node_id", r.proxy(), "by", r.by, "type_url", r.typeURL,
		"resources", r.names, "revision", r.revision, "documents", names(likely), "err", r.text)
	for _, suspects := range [][]suspect{likely, all} {
		if len(suspects) > 0 && s.confine(r, suspects) {
			return
		}
	}
}

// knownType returns a type that is served, or "other": proxies shall not make
// up metrics.
func (s *Server) knownType(typeURL string) string {
	if s.views.shared[typeURL] != nil || typeURL == revisionType || slices.Contains(revisedTypes, typeURL) {
		return typeURL
	}
	return "other"
}

// confine puts documents into quarantine, if the rest is valid without them.
func (s *Server) confine(r rejection, suspects []suspect) bool {
	quarantine := maps.Clone(s.documents.quarantine)
	for _, u := range suspects {
		quarantine[u.id] = quarantined{hash: u.hash, previous: u.previous, rejection: r, since: time.Now()}
	}
	if err := s.apply(quarantine); err != nil {
		s.log.Error("documents not put into quarantine", "documents", names(suspects), "err", err)
		return false
	}
	s.log.Warn("documents in quarantine", "documents", names(suspects))
	return true
}

func names(suspects []suspect) []string {
	out := make([]string, 0, len(suspects))
	for _, u := range suspects {
		out = append(out, u.id.String())
	}
	return out
}
