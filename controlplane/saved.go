package controlplane

import (
	"errors"
	"fmt"
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
	// Read is the set that the directory held, Accepted that of the documents
	// of identity providers that agents took.
	Read       string            `json:"read"`
	Accepted   string            `json:"accepted"`
	Proven     []savedProven     `json:"proven"`
	Quarantine []savedQuarantine `json:"quarantine"`
}

// savedProven is the set that the proven generation of a view was made from.
type savedProven struct {
	View identity.ID `json:"view"`
	Set  string      `json:"set"`
}

// savedQuarantine is one document that a view does without.
type savedQuarantine struct {
	View     identity.ID     `json:"view"`
	Document mesh.DocumentID `json:"document"`
	// Previous is the hash of what is served instead; empty is nothing.
	Previous string `json:"previous,omitempty"`
	quarantined
}

// toSave returns the present state.
func (s *Server) toSave() (any, error) {
	s.mu.Lock()
	served, accepted, q := s.documents.served, s.documents.accepted, s.documents.quarantine
	proven := s.views.proven()
	s.mu.Unlock()
	saved := &savedDocuments{
		Texts:    map[string]string{},
		Sets:     map[string][]string{},
		Read:     served.hash,
		Accepted: accepted.Hash(),
	}
	errs := []error{saved.add(served.hash, served.documents), saved.add(saved.Accepted, accepted)}
	for view, c := range proven {
		saved.Proven = append(saved.Proven, savedProven{view, c.hash})
		errs = append(errs, saved.add(c.hash, c.documents))
	}
	for view, documents := range q {
		for id, d := range documents {
			saved.Quarantine = append(saved.Quarantine, savedQuarantine{view, id, d.previousHash(), d})
		}
	}
	return saved, errors.Join(errs...)
}

// add adds a set of documents.
func (sd *savedDocuments) add(hash string, docs mesh.Documents) error {
	if sd.Sets[hash] != nil {
		return nil
	}
	for _, d := range docs.All() {
		key := d.ID.String() + " " + d.Hash
		sd.Sets[hash] = append(sd.Sets[hash], key)
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
func (sd *savedDocuments) set(hash string) (mesh.Documents, error) {
	var texts strings.Builder
	for _, key := range sd.Sets[hash] {
		fmt.Fprintf(&texts, "---\n%s\n", sd.Texts[key])
	}
	docs := mesh.Parse("documents.json", []byte(texts.String()))
	if docs.Hash() != hash {
		return mesh.Documents{}, fmt.Errorf("set of documents %q is not what it was", hash)
	}
	return docs, nil
}

// restore takes what an earlier process saved, as far as it is usable.
func (s *Server) restore() error {
	var saved savedDocuments
	if err := readState(s.saved.path, &saved); err != nil || saved.Read == "" {
		return err
	}
	var readErr, acceptedErr error
	s.documents.earlier, readErr = saved.set(saved.Read)
	s.documents.accepted, acceptedErr = saved.set(saved.Accepted)
	return errors.Join(readErr, acceptedErr, s.restoreProven(&saved), s.restoreQuarantine(&saved))
}

// restoreProven takes the proven generations: without them nobody could tell
// which document is new.
func (s *Server) restoreProven(saved *savedDocuments) error {
	s.views.earlier = map[identity.ID]*generation{}
	contents := map[string]*content{}
	var errs []error
	for _, p := range saved.Proven {
		c := contents[p.Set]
		if c == nil {
			docs, err := saved.set(p.Set)
			if err == nil {
				c, err = newContent(docs, s.documents.options)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("view of %s: %w", p.View, err))
				continue
			}
			contents[p.Set] = c
		}
		g, err := newGeneration(c, p.View)
		if err != nil {
			errs = append(errs, fmt.Errorf("view of %s: %w", p.View, err))
			continue
		}
		s.views.earlier[p.View] = g
	}
	return errors.Join(errs...)
}

// restoreQuarantine takes the quarantine, as far as what is served instead is
// there.
func (s *Server) restoreQuarantine(saved *savedDocuments) error {
	var errs []error
	for _, q := range saved.Quarantine {
		proven := s.documents.accepted
		if g := s.views.earlier[q.View]; g != nil {
			proven = g.documents
		}
		q.previous = proven.Get(q.Document)
		if q.previousHash() != q.Previous {
			errs = append(errs, fmt.Errorf("quarantine of %s: what %s had before is lost", q.Document, q.View))
			continue
		}
		s.documents.quarantine = s.documents.quarantine.with(q.View, confined{q.Document: q.quarantined})
	}
	return errors.Join(errs...)
}
