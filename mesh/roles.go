package mesh

import (
	"fmt"
	"maps"
	"slices"
)

// role is one of a Roles document, with where it stands.
type role struct {
	scope
	path string
	form roleForm
	// permissions are its own and those that it includes, once state is resolved.
	permissions map[string]bool
	state       roleState
}

type roleState int

const (
	roleNew roleState = iota
	roleResolving
	roleResolved
)

// roles resolves the tables of all Roles documents together. A role stands in
// one of them, and includes others of any.
func (c *compiler) roles(documents []*Document) []Role {
	byName := map[string]*role{}
	for _, document := range documents {
		form, ok := document.form.(*rolesForm)
		if !ok {
			continue
		}
		for i, f := range form.Roles {
			r := &role{scope: scope{compiler: c, document: document}, path: fmt.Sprintf("roles[%d]", i), form: f}
			if first, twice := byName[string(f.Name)]; twice {
				r.fault(r.path+".name", "%q is a role of %s already: rename one", f.Name, first.document.describe())
				continue
			}
			byName[string(f.Name)] = r
		}
	}
	names := slices.Sorted(maps.Keys(byName))
	var roles []Role
	for _, name := range names {
		r := byName[name]
		r.resolve(byName, names)
		roles = append(roles, Role{Name: name, Groups: r.form.Groups, Permissions: slices.Sorted(maps.Keys(r.permissions))})
	}
	return roles
}

// resolve collects the permissions of r, each role once however many include it.
func (r *role) resolve(byName map[string]*role, names []string) {
	if r.state == roleResolved {
		return
	}
	r.state, r.permissions = roleResolving, map[string]bool{}
	for _, p := range r.form.Permissions {
		r.permissions[p] = true
	}
	for i, name := range r.form.Includes {
		path := fmt.Sprintf("%s.includes[%d]", r.path, i)
		included := byName[name]
		switch {
		case included == nil && !r.documents.incomplete:
			r.fault(path, "there is no role called %q%s", name, didYouMean(name, names))
		case included == nil:
		case included.state == roleResolving:
			r.fault(path, "%q includes this role in turn: remove one of the two", name)
		default:
			included.resolve(byName, names)
			maps.Copy(r.permissions, included.permissions)
		}
	}
	r.state = roleResolved
}
