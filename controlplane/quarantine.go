package controlplane

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/mesh"
)

// quarantine is which documents each view does without, because one of its own
// proxies rejected what was made of them. What a workload says of a document
// counts for its own view alone: a sidecar that was taken over must not undo
// the policy of others. What all views share, identity providers, everybody does
// without. Its values are immutable.
type quarantine map[identity.ID]confined

// confined are the documents of one view that are in quarantine.
type confined map[mesh.DocumentID]quarantined

// quarantined is a document that a proxy rejected.
type quarantined struct {
	// Hash is of the rejected content, empty when it is that the document is
	// gone: another content is another try.
	Hash      string    `json:"hash"`
	Rejection rejection `json:"rejection"`
	Since     time.Time `json:"since"`
	// previous is served instead, as in the view's proven generation; nil is
	// nothing.
	previous *mesh.Document
}

// previousHash returns the hash of what is served instead, if anything.
func (q quarantined) previousHash() string {
	if q.previous == nil {
		return ""
	}
	return q.previous.Hash
}

// with returns the quarantine with further documents of a view.
func (q quarantine) with(view identity.ID, more confined) quarantine {
	all := maps.Clone(q)
	all[view] = maps.Clone(q[view])
	if all[view] == nil {
		all[view] = confined{}
	}
	maps.Copy(all[view], more)
	return all
}

// size counts the documents, once for each view.
func (q quarantine) size() (n int) {
	for _, documents := range q {
		n += len(documents)
	}
	return n
}

// without returns documents as they are served instead.
func (c confined) without(docs mesh.Documents) mesh.Documents {
	for id, q := range c {
		if q.previous != nil {
			docs = docs.With(q.previous)
		} else {
			docs = docs.Without(id)
		}
	}
	return docs
}

// differ reports whether any document is not the rejected one any more.
func (c confined) differ(docs mesh.Documents) bool {
	for id, q := range c {
		if hashOf(docs, id) != q.Hash {
			return true
		}
	}
	return false
}

// hashOf returns the hash of a document, or nothing when there is none.
func hashOf(docs mesh.Documents, id mesh.DocumentID) string {
	if d := docs.Get(id); d != nil {
		return d.Hash
	}
	return ""
}

// status tells of each document, sorted by name and view.
func (q quarantine) status() []QuarantineStatus {
	out := make([]QuarantineStatus, 0, q.size())
	for view, documents := range q {
		name := "all views"
		if view != everybody {
			name = view.String()
		}
		for id, d := range documents {
			out = append(out, QuarantineStatus{
				Document: id.String(),
				View:     name,
				Since:    d.Since,
				Reason:   d.Rejection.Text,
				Proxy:    d.Rejection.proxy(),
				TypeURL:  d.Rejection.TypeURL,
				Previous: d.previous != nil,
			})
		}
	}
	slices.SortFunc(out, func(a, b QuarantineStatus) int {
		return cmp.Or(cmp.Compare(a.Document, b.Document), cmp.Compare(a.View, b.View))
	})
	return out
}
