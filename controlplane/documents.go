package controlplane

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/mesh"
)

// documents are what the directory holds, what of it proxies reject, and what
// is served. The server's lock guards them.
type documents struct {
	dir     string
	options mesh.Options
	// read is the last valid content of the directory.
	read mesh.Documents
	// faults are what is wrong with its present content, or why that is not
	// served.
	faults     error
	quarantine map[mesh.DocumentID]quarantined
	// served is what views are made of: read, without what is in quarantine.
	served   mesh.Documents
	since    time.Time
	restored bool
}

// quarantined is a document that a proxy rejected.
type quarantined struct {
	// hash is of the rejected content: another one is another try.
	hash string
	// previous is served instead; nil is nothing.
	previous  *mesh.Document
	rejection rejection
	since     time.Time
}

// take accepts new, valid content of the directory. Documents that changed, or
// went, leave quarantine.
func (d *documents) take(read mesh.Documents) {
	d.read, d.faults = read, nil
	for id, q := range d.quarantine {
		if now := read.Get(id); now == nil || now.Hash != q.hash {
			delete(d.quarantine, id)
		}
	}
}

// contained returns what is to be served, given a quarantine.
func (d *documents) contained(quarantine map[mesh.DocumentID]quarantined) (mesh.Documents, *mesh.Mesh, error) {
	docs := d.read
	for id, q := range quarantine {
		if q.previous != nil {
			docs = docs.With(q.previous)
		} else {
			docs = docs.Without(id)
		}
	}
	m, err := docs.Compile(d.options)
	if err != nil && len(quarantine) > 0 {
		err = fmt.Errorf("with %d documents in quarantine: %w", len(quarantine), err)
	}
	return docs, m, err
}

// serve notes what is served from now on.
func (d *documents) serve(docs mesh.Documents) {
	if d.served.Hash() != docs.Hash() || d.since.IsZero() {
		d.since = time.Now()
	}
	d.served = docs
}

// valid reports whether the directory's present content is served, quarantine
// apart.
func (d *documents) valid() bool { return d.faults == nil && !d.restored && !d.since.IsZero() }

func (d *documents) status() DocumentsStatus {
	s := DocumentsStatus{
		Dir:      d.dir,
		Valid:    d.valid(),
		Served:   len(d.served.All()),
		Since:    d.since,
		Restored: d.restored,
	}
	if d.faults != nil {
		s.Faults = strings.Split(d.faults.Error(), "\n")
	}
	return s
}

func (d *documents) quarantineStatus() []QuarantineStatus {
	out := make([]QuarantineStatus, 0, len(d.quarantine))
	for id, q := range d.quarantine {
		out = append(out, QuarantineStatus{
			Document: id.String(),
			Since:    q.since,
			Reason:   q.rejection.text,
			Proxy:    q.rejection.proxy(),
			TypeURL:  q.rejection.typeURL,
			Previous: q.previous != nil,
		})
	}
	slices.SortFunc(out, func(a, b QuarantineStatus) int { return cmp.Compare(a.Document, b.Document) })
	return out
}
