package controlplane

import (
	"slices"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/mesh"
)

// rejection is a NACK: some proxy did not take some resources.
type rejection struct {
	ID       identity.ID `json:"id"`
	Instance string      `json:"instance"`
	// By is who said so: "agent" or "envoy".
	By string `json:"by"`
	// Revision is the view's that the resources were of; empty when it is not
	// known.
	Revision string   `json:"revision"`
	TypeURL  string   `json:"typeURL"`
	Names    []string `json:"names"`
	Text     string   `json:"text"`
	// versions are what was sent of the names; nil when that is not known.
	versions map[string]string
}

func (r rejection) proxy() string { return strings.TrimSuffix(r.ID.String()+"/"+r.Instance, "/") }

// suspect is a document that may be to blame, and its last version that was
// not; nil when there is none. The hash is empty when it is gone.
type suspect struct {
	id       mesh.DocumentID
	hash     string
	previous *mesh.Document
}

// suspects returns whom to blame for a rejection: of the documents that the view
// is made of and that changed since one of its proxies took it whole, the likely
// ones, and all, for when the likely ones cannot be taken out alone. Nobody is
// to blame when the rejected generation is no longer the latest, nor for what is
// not of one view. Nobody is, either, when proxies took it before: no document
// has changed since, so it is the proxy.
func (vs *views) suspects(r rejection) (likely, all []suspect) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	v := vs.byID[r.ID]
	if v == nil || r.Revision != v.latest.revision || !slices.Contains(revisedTypes, r.TypeURL) {
		return nil, nil
	}
	return v.suspects(r)
}

func (v *view) suspects(r rejection) (likely, all []suspect) {
	ids, named := v.latest.suspects(r.TypeURL, r.Names, r.Text)
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
	for _, id := range v.sources() {
		before, now := v.proven.documents.Get(id), hashOf(v.latest.documents, id)
		if now == hashOf(v.proven.documents, id) {
			continue
		}
		s := suspect{id: id, hash: now, previous: before}
		all = append(all, s)
		if slices.Contains(ids, id) {
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

// sources returns the documents that either generation was made of, sorted.
func (v *view) sources() []mesh.DocumentID {
	var ids []mesh.DocumentID
	for _, g := range []*generation{v.latest, v.proven} {
		ids = slices.AppendSeq(ids, g.sources())
	}
	slices.SortFunc(ids, compareDocuments)
	return slices.Compact(ids)
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
	s.metrics.nacks.WithLabelValues(s.knownType(r.TypeURL), r.By).Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	view := r.ID
	likely, all := s.views.suspects(r)
	if r.TypeURL == providerType {
		view, likely = everybody, s.providersRejected(r.ID, r.versions)
	}
	s.log.Error("resources rejected", "node_id", r.proxy(), "by", r.By, "type_url", r.TypeURL,
		"resources", r.Names, "revision", r.Revision, "documents", names(likely), "err", r.Text)
	for _, suspects := range [][]suspect{likely, all} {
		if len(suspects) > 0 && s.confine(view, r, suspects) {
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
func (s *Server) confine(view identity.ID, r rejection, suspects []suspect) bool {
	more := confined{}
	for _, u := range suspects {
		more[u.id] = quarantined{Hash: u.hash, Rejection: r, Since: time.Now(), previous: u.previous}
	}
	if err := s.apply(s.documents.quarantine.with(view, more)); err != nil {
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
