package controlplane

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/identity"
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
	quarantine quarantine
	// served is what views are made of that have nothing in quarantine; nil
	// before the first.
	served *content
	since  time.Time
	// earlier is what an earlier process read last; restored says that it is
	// served.
	earlier  mesh.Documents
	restored bool
}

// take accepts new, valid content of the directory. Where a view has documents
// in quarantine and one of them changed or went, or it cannot do without them
// any more, it tries all of them again: which one was to blame is a guess.
func (d *documents) take(read mesh.Documents) {
	d.read, d.faults = read, nil
	d.quarantine = maps.Clone(d.quarantine)
	maps.DeleteFunc(d.quarantine, func(view identity.ID, confined confined) bool {
		_, err := d.content(d.quarantine, view)
		return err != nil || confined.differ(read)
	})
}

// content returns what a view is made from under a quarantine.
func (d *documents) content(q quarantine, view identity.ID) (*content, error) {
	c, err := newContent(q[view].without(d.read), d.options)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(workloads(c.mesh), view) {
		return nil, fmt.Errorf("no document of %s is left", view)
	}
	return c, nil
}

// content is a valid set of documents, compiled. It is immutable.
type content struct {
	documents mesh.Documents
	hash      string
	mesh      *mesh.Mesh
}

func newContent(docs mesh.Documents, options mesh.Options) (*content, error) {
	m, err := docs.Compile(options)
	if err != nil {
		return nil, err
	}
	return &content{docs, docs.Hash(), m}, nil
}

// serve notes what is served from now on.
func (d *documents) serve(c *content) {
	if d.served == nil || d.served.hash != c.hash {
		d.since = time.Now()
	}
	d.served = c
}

// valid reports whether the directory's present content is served, quarantine
// apart.
func (d *documents) valid() bool { return d.faults == nil && !d.restored && d.served != nil }

func (d *documents) status() DocumentsStatus {
	s := DocumentsStatus{
		Dir:      d.dir,
		Valid:    d.valid(),
		Since:    d.since,
		Restored: d.restored,
	}
	if d.served != nil {
		s.Served = len(d.served.documents.All())
	}
	if d.faults != nil {
		s.Faults = strings.Split(d.faults.Error(), "\n")
	}
	return s
}
