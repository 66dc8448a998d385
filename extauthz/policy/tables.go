package policy

import (
	"fmt"
	"slices"

	"github.com/chancery-mesh/chancery/internal/jose"
)

// Role is what users of some groups may do.
type Role struct {
	Name        string
	Groups      []string
	Permissions []string
}

// Tables are what documents tell rules: roles and data sets. They are
// immutable. Nil has none.
type Tables struct {
	// byGroup has the roles of each group, and data the sets by name.
	byGroup map[string][]Role
	data    map[string]any
}

// NewTables returns the tables with roles, and data sets that are JSON objects.
func NewTables(roles []Role, data map[string][]byte) (*Tables, error) {
	t := &Tables{byGroup: map[string][]Role{}, data: map[string]any{}}
	for _, r := range roles {
		for _, group := range r.Groups {
			t.byGroup[group] = append(t.byGroup[group], r)
		}
	}
	for name, text := range data {
		set, err := jose.ParseObject(text)
		if err != nil {
			return nil, fmt.Errorf("data %q: %w", name, err)
		}
		if t.data[name], err = native(set); err != nil {
			return nil, fmt.Errorf("data %q: %w", name, err)
		}
	}
	return t, nil
}

func (t *Tables) all() map[string]any {
	if t == nil {
		return nil
	}
	return t.data
}

// of returns the roles of a user, nil if the groups are not known.
func (t *Tables) of(groups []string, each func(Role) []string) any {
	if groups == nil {
		return nil
	}
	names := []string{}
	for _, group := range groups {
		if t == nil {
			break
		}
		for _, r := range t.byGroup[group] {
			names = append(names, each(r)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (u *User) readRoles() any {
	return u.tables.of(u.Groups, func(r Role) []string { return []string{r.Name} })
}

func (u *User) readPermissions() any {
	return u.tables.of(u.Groups, func(r Role) []string { return r.Permissions })
}
