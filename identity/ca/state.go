package ca

import (
	"errors"
	"fmt"
	"slices"
)

// state is what the CA signs with. A state that was published is immutable.
type state struct {
	trustDomain string
	// root signs the next authority; nil where roots are supplied.
	root *root
	// authorities, oldest first.
	authorities []*issuer
}

func (s *state) find(id string) (int, error) {
	at := slices.IndexFunc(s.authorities, func(i *issuer) bool { return i.ID == id })
	if at < 0 {
		return 0, fmt.Errorf("there is no authority %q", id)
	}
	return at, nil
}

func (s *state) active() (*issuer, error) {
	at := slices.IndexFunc(s.authorities, func(i *issuer) bool { return i.State == Active })
	if at < 0 {
		return nil, errors.New("no authority is active: prepare and activate one")
	}
	return s.authorities[at], nil
}

// uses reports whether what the authority signed need not be renewed at once.
func (s *state) uses(id string) bool {
	return slices.ContainsFunc(s.authorities, func(i *issuer) bool { return i.ID == id && (i.State == Active || i.State == Old) })
}

// trusts reports whether Trust has the authority.
func (s *state) trusts(id string) bool {
	return slices.ContainsFunc(s.authorities, func(i *issuer) bool { return i.ID == id && i.trusted() })
}
