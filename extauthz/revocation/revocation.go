// Package revocation tells whether a credential was revoked: by who vouched for
// it and by what it says, and never by its bytes, of which there may be twins
// that are as good.
//
//	index, err := revocation.New(resources...)
//	...
//	id, revoked := index.Find(revocation.Credential{Provider: "staff", User: "alice", IssuedAt: issued}, now)
//
// A look-up costs the same whatever the number of entries, allocates nothing and
// takes no lock. The package knows neither where entries come from nor what a
// credential looks like; whoever asks has verified it.
package revocation

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// Credential is what a verified credential says. What is empty it does not
// tell.
type Credential struct {
	// Provider is the name of the identity provider that vouched for it, empty
	// for what the mesh itself knows, such as API keys.
	Provider string
	// User and Subject are two names for whom it speaks for: the one that the mesh
	// goes by, and `sub`. An entry about a subject means either.
	User, Subject string
	// Token is its own ID (`jti`), and Others are those of what it stands for or
	// was shown with.
	Token  string
	Others []string
	Client string
	Tenant string
	// IssuedAt is when it was issued.
	IssuedAt time.Time
}

// What an entry is about.
const (
	bySubject = iota
	byToken
	byClient
	byTenant
	kinds
)

// Index is what is revoked. It is immutable; a nil Index revokes nothing.
type Index struct {
	// entries by what they are about and its value.
	entries  [kinds]map[string][]entry
	size     int
	sequence uint64
}

type entry struct {
	id string
	// providers whose credentials are meant; empty is all.
	providers []string
	// before is the last time of issue that is meant, expires when the entry
	// ends.
	before, expires time.Time
}

// New returns the index of some resources. An entry that cannot be told what it
// means is an error: it must not be passed over.
func New(resources ...*chancerypb.Revocations) (*Index, error) {
	ix := &Index{}
	var errs []error
	for _, r := range resources {
		ix.sequence = max(ix.sequence, r.GetSequence())
		for _, e := range r.GetEntries() {
			errs = append(errs, ix.add(e))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return ix, nil
}

func (ix *Index) add(r *chancerypb.Revocation) error {
	kind, value := about(r)
	if value == "" || r.GetId() == "" || r.GetBefore() == nil || r.GetExpires() == nil {
		return fmt.Errorf("revocation %q does not say what it revokes", r.GetId())
	}
	if ix.entries[kind] == nil {
		ix.entries[kind] = map[string][]entry{}
	}
	ix.entries[kind][value] = append(ix.entries[kind][value], entry{
		id: r.GetId(), providers: r.GetProviders(), before: r.GetBefore().AsTime(), expires: r.GetExpires().AsTime(),
	})
	ix.size++
	return nil
}

func about(r *chancerypb.Revocation) (kind int, value string) {
	switch whose := r.GetWhose().(type) {
	case *chancerypb.Revocation_Subject:
		return bySubject, whose.Subject
	case *chancerypb.Revocation_Token:
		return byToken, whose.Token
	case *chancerypb.Revocation_Client:
		return byClient, whose.Client
	case *chancerypb.Revocation_Tenant:
		return byTenant, whose.Tenant
	}
	return 0, ""
}

// Find returns the ID of an entry that refuses a credential at the time now, if
// there is one. A credential that does not tell when it was issued may be as old
// as any.
func (ix *Index) Find(c Credential, now time.Time) (id string, revoked bool) {
	if ix == nil || ix.size == 0 {
		return "", false
	}
	for _, told := range [...]struct {
		kind  int
		value string
	}{
		{bySubject, c.User}, {bySubject, c.Subject}, {byToken, c.Token}, {byClient, c.Client}, {byTenant, c.Tenant},
	} {
		if id, revoked = ix.find(told.kind, told.value, &c, now); revoked {
			return id, true
		}
	}
	for _, token := range c.Others {
		if id, revoked = ix.find(byToken, token, &c, now); revoked {
			return id, true
		}
	}
	return "", false
}

func (ix *Index) find(kind int, value string, c *Credential, now time.Time) (id string, revoked bool) {
	for _, e := range ix.entries[kind][value] {
		if e.refuses(c, now) {
			return e.id, true
		}
	}
	return "", false
}

func (e *entry) refuses(c *Credential, now time.Time) bool {
	meant := len(e.providers) == 0 || slices.Contains(e.providers, c.Provider)
	return meant && !c.IssuedAt.After(e.before) && !now.After(e.expires)
}

// Len returns the number of entries, 0 for a nil Index.
func (ix *Index) Len() int {
	if ix == nil {
		return 0
	}
	return ix.size
}

// Sequence returns that of the newest resource, 0 for a nil Index: all changes up
// to it are in the index.
func (ix *Index) Sequence() uint64 {
	if ix == nil {
		return 0
	}
	return ix.sequence
}
