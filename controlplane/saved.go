package controlplane

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/mesh"
)

// savedDocuments are what the next process begins from: the documents that the
// directory held, and what proxies said of them.
type savedDocuments struct {
	// Texts are documents in YAML, by kind, name and hash. Sets are made of
	// them, by the hash of the whole.
	Texts map[string]string   `json:"texts"`
	Sets  map[string][]string `json:"sets"`
	// Read is the set that the directory held.
	Read  string      `json:"read"`
	Views []savedView `json:"views"`
}

// savedView is what the proxies of one view said.
type savedView struct {
	ID identity.ID `json:"id"`
	// Proven is the set that the proven generation was made from; empty when
	// there was none.
	Proven     string            `json:"proven,omitempty"`
	Quarantine []savedQuarantine `json:"quarantine,omitempty"`
}

type savedQuarantine struct {
	Document mesh.DocumentID `json:"document"`
	quarantined
}

// toSave returns the present state.
func (s *Server) toSave() (any, error) {
	s.mu.Lock()
	served, q := s.documents.served, s.documents.quarantine
	proven := s.views.proven()
	s.mu.Unlock()
	saved := &savedDocuments{Texts: map[string]string{}, Sets: map[string][]string{}}
	if err := saved.add(served); err != nil {
		return nil, err
	}
	saved.Read = served.hash
	for id, c := range proven {
		view := savedView{ID: id}
		if c != nil {
			if err := saved.add(c); err != nil {
				return nil, err
			}
			view.Proven = c.hash
		}
		for document, d := range q[id] {
			view.Quarantine = append(view.Quarantine, savedQuarantine{document, d})
		}
		saved.Views = append(saved.Views, view)
	}
	return saved, nil
}

// add adds a set of documents.
func (sd *savedDocuments) add(c *content) error {
	if sd.Sets[c.hash] != nil {
		return nil
	}
	for _, d := range c.documents.All() {
		key := d.ID.String() + " " + d.Hash
		sd.Sets[c.hash] = append(sd.Sets[c.hash], key)
		if sd.Texts[key] != "" {
			continue
		}
		text, err := d.YAML()
		if err != nil {
			return fmt.Errorf("write %s: %w", d.ID, err)
		}
		sd.Texts[key] = string(text)
	}
	return nil
}

// set returns a set of documents.
func (sd *savedDocuments) set(path, hash string) (mesh.Documents, error) {
	var texts strings.Builder
	for _, key := range sd.Sets[hash] {
		fmt.Fprintf(&texts, "---\n%s\n", sd.Texts[key])
	}
	docs := mesh.Parse(path, []byte(texts.String()))
	if docs.Hash() != hash {
		return mesh.Documents{}, fmt.Errorf("%s: set of documents %q is not what it was", path, hash)
	}
	return docs, nil
}

// restore takes what an earlier process saved: the proven generations, without
// which nobody could tell which document is new, and the quarantine. What is
// not usable any more of one view leaves it with nothing.
func (s *Server) restore() error {
	var saved savedDocuments
	if err := readState(s.saved.path, &saved); err != nil || saved.Read == "" {
		return err
	}
	earlier, err := saved.set(s.saved.path, saved.Read)
	errs := []error{err}
	s.documents.earlier, s.views.earlier = earlier, map[identity.ID]*generation{}
	contents := map[string]*content{"": nil}
	for _, view := range saved.Views {
		c, ok := contents[view.Proven]
		if !ok {
			docs, err := saved.set(s.saved.path, view.Proven)
			if err == nil {
				c, err = newContent(docs, s.documents.options)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("view of %s: %w", view.ID, err))
				continue
			}
			contents[view.Proven] = c
		}
		if err := s.restoreView(view, c); err != nil {
			errs = append(errs, fmt.Errorf("view of %s: %w", view.ID, err))
		}
	}
	return errors.Join(errs...)
}

// restoreView takes what was saved of one view; c is what its proven generation
// was made from, or nil.
func (s *Server) restoreView(view savedView, c *content) error {
	var proven mesh.Documents
	if c != nil {
		if !slices.Contains(workloads(c.mesh), view.ID) {
			return errors.New("it is not of its documents")
		}
		g, err := newGeneration(c, view.ID)
		if err != nil {
			return err
		}
		s.views.earlier[view.ID], proven = g, c.documents
	}
	for _, d := range view.Quarantine {
		d.previous = proven.Get(d.Document)
		s.documents.quarantine = s.documents.quarantine.with(view.ID, confined{d.Document: d.quarantined})
	}
	return nil
}
