package mesh

import (
	"cmp"
	"fmt"
	"slices"
)

// role is one of a Roles document, with where it stands.
type role struct {
	scope
	path string
	form roleForm
}

// roles resolves the tables of all Roles documents together. A role stands in
// one of them, and includes others of any.
func (c *compiler) roles() []Role {
	byName := map[string]role{}
	for _, document := range c.documents.All() {
		form, ok := document.form.(*rolesForm)
		if !ok {
			continue
		}
		for i, f := range form.Roles {
			r := role{scope{compiler: c, document: document}, fmt.Sprintf("roles[%d]", i), f}
			if first, twice := byName[string(f.Name)]; twice {
				r.fault(r.path+".name", "%q is a role of %s already: rename one", f.Name, first.document.describe())
				continue
			}
			byName[string(f.Name)] = r
		}
	}
	var roles []Role
	for name, r := range byName {
		permissions := map[string]bool{}
		r.collect(byName, permissions, nil)
		resolved := Role{Name: name, Groups: r.form.Groups}
		for permission := range permissions {
			resolved.Permissions = append(resolved.Permissions, permission)
		}
		slices.Sort(resolved.Permissions)
		roles = append(roles, resolved)
	}
	slices.SortFunc(roles, func(a, b Role) int { return cmp.Compare(a.Name, b.Name) })
	return roles
}

// collect adds the permissions of r and of what it includes; within are the
// roles that led here.
func (r role) collect(byName map[string]role, permissions map[string]bool, within []string) {
	for _, p := range r.form.Permissions {
		permissions[p] = true
	}
	within = append(within, string(r.form.Name))
	for i, name := range r.form.Includes {
		path := fmt.Sprintf("%s.includes[%d]", r.path, i)
		included, ok := byName[name]
		switch {
		case !ok && !r.documents.incomplete:
			var names []string
			for n := range byName {
				names = append(names, n)
			}
			slices.Sort(names)
			r.fault(path, "there is no role called %q%s", name, didYouMean(name, names))
		case slices.Contains(within, name):
			r.fault(path, "%q includes this role in turn: remove one of the two", name)
		case ok:
			included.collect(byName, permissions, within)
		}
	}
}
