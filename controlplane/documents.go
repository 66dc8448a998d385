package controlplane

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/xds"
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
	faults error
	// pending is its present content if that is valid and could not be served.
	pending    *mesh.Documents
	quarantine quarantine
	// accepted are the documents of identity providers, each as agents took it
	// last.
	accepted mesh.Documents
	// refused are those of them that agents did not take.
	refused map[mesh.DocumentID]refusals
	// served is what views are made of that have nothing of their own in
	// quarantine; nil before the first.
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
	d.read, d.faults, d.pending = read, nil, nil
	d.quarantine = maps.Clone(d.quarantine)
	for _, view := range slices.SortedFunc(maps.Keys(d.quarantine), compareIDs) { // everybody comes first
		_, err := d.content(d.quarantine, view)
		if err != nil || d.quarantine[view].differ(read) {
			delete(d.quarantine, view)
		}
	}
}

// content returns what a view, or everybody, is made from under a quarantine.
func (d *documents) content(q quarantine, view identity.ID) (*content, error) {
	docs := q[everybody].without(d.read)
	if view != everybody {
		docs = q[view].without(docs)
	}
	c, err := newContent(docs, d.options)
	if err != nil {
		return nil, err
	}
	if view != everybody && !c.has(view) {
		return nil, errNoDocument
	}
	return c, nil
}

// content is a valid set of documents, compiled. It is immutable.
type content struct {
	documents mesh.Documents
	hash      string
	mesh      *mesh.Mesh
	// accounts are who the documents say comes in, by the name that package
	// translate has for them.
	accounts map[string]*xds.Resource
}

var errNoDocument = errors.New("its own document is not there")

// has reports whether there is a document of a workload.
func (c *content) has(id identity.ID) bool {
	if id.Role == identity.RoleGateway {
		return c.mesh.Gateway(id.Name) != nil
	}
	return c.mesh.Service(id.Name) != nil
}

func newContent(docs mesh.Documents, options mesh.Options) (*content, error) {
	m, err := docs.Compile(options)
	if err != nil {
		return nil, err
	}
	c := &content{documents: docs, hash: docs.Hash(), mesh: m, accounts: map[string]*xds.Resource{}}
	for name, accounts := range translate.Accounts(m) {
		if c.accounts[name], err = xds.New(name, accounts); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// accountsOf returns the accounts that the view of id is decided by, pinned.
func (c *content) accountsOf(id identity.ID) []*xds.Resource {
	if id.Role != identity.RoleGateway {
		return nil
	}
	var accounts []*xds.Resource
	for _, name := range translate.AccountNames(c.mesh.Gateway(id.Name)) {
		accounts = append(accounts, c.accounts[name].Pinned())
	}
	return accounts
}

// serve notes what is served from now on.
func (d *documents) serve(c *content) {
	if d.served == nil || d.served.hash != c.hash {
		d.since = time.Now()
	}
	d.served = c
	d.forget()
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
