package passport

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/internal/jose"
)

// claims is the wire form.
type claims struct {
	IssuedAt int64    `json:"iat"`
	Expires  int64    `json:"exp"`
	Audience string   `json:"aud"`
	ID       string   `json:"txn"`
	Subject  string   `json:"sub"`
	Scope    string   `json:"scope"`
	Gateway  string   `json:"req_wl"`
	User     userInfo `json:"tctx"`
	Request  request  `json:"rctx"`
}

type userInfo struct {
	Provider string   `json:"idp,omitempty"`
	Tenant   string   `json:"tenant,omitempty"`
	Groups   []string `json:"groups,omitzero"`
	Client   string   `json:"client,omitempty"`
}

type request struct {
	IP    string `json:"req_ip,omitempty"`
	Authn string `json:"authn,omitempty"`
}

// check refuses what could not be verified, or read in two ways.
func (p *Passport) check() error {
	for _, required := range []string{p.ID, p.Subject, p.Audience, p.Gateway} {
		if !jose.IsIdentifier(required) {
			return errors.New("txn, sub, aud and req_wl must be identifiers")
		}
	}
	for _, optional := range []string{p.Provider, p.Tenant, p.Client, p.ClientIP, p.Authn} {
		if optional != "" && !jose.IsIdentifier(optional) {
			return errors.New("idp, tenant, client, req_ip and authn must be identifiers")
		}
	}
	if !allIdentifiers(p.Groups) || !allIdentifiers(p.Scopes) ||
		slices.ContainsFunc(p.Scopes, func(s string) bool { return strings.Contains(s, " ") }) {
		return errors.New("groups and scopes must be identifiers")
	}
	if !p.ExpiresAt.After(p.IssuedAt) {
		return errors.New("exp must be after iat")
	}
	return nil
}

func allIdentifiers(list []string) bool {
	return !slices.ContainsFunc(list, func(s string) bool { return !jose.IsIdentifier(s) })
}

func (p *Passport) encode() ([]byte, error) {
	return json.Marshal(claims{
		IssuedAt: p.IssuedAt.Unix(), Expires: p.ExpiresAt.Unix(),
		Audience: p.Audience, ID: p.ID, Subject: p.Subject, Gateway: p.Gateway,
		Scope:   strings.Join(p.Scopes, " "),
		User:    userInfo{Provider: p.Provider, Tenant: p.Tenant, Groups: p.Groups, Client: p.Client},
		Request: request{IP: p.ClientIP, Authn: p.Authn},
	})
}

// reader collects the first error of many reads.
type reader struct{ err error }

func (r *reader) string(o jose.Object, name string) string {
	s, _, err := o.String(name)
	r.err = errors.Join(r.err, err)
	return s
}

func (r *reader) time(o jose.Object, name string) time.Time {
	t, present, err := o.Time(name)
	if !present {
		err = fmt.Errorf("%w: no %q", ErrMalformed, name)
	}
	r.err = errors.Join(r.err, err)
	return t
}

func (r *reader) object(o jose.Object, name string) jose.Object {
	v, ok := o[name].(jose.Object)
	if _, present := o[name]; present && !ok {
		r.err = errors.Join(r.err, fmt.Errorf("%w: %q is not an object", ErrMalformed, name))
	}
	return v
}

func decode(o jose.Object) (*Passport, error) {
	var r reader
	user, request := r.object(o, "tctx"), r.object(o, "rctx")
	groups, _, err := user.Strings("groups")
	p := &Passport{
		ID: r.string(o, "txn"), Subject: r.string(o, "sub"), Audience: r.string(o, "aud"),
		Gateway: r.string(o, "req_wl"), IssuedAt: r.time(o, "iat"), ExpiresAt: r.time(o, "exp"),
		Provider: r.string(user, "idp"), Tenant: r.string(user, "tenant"), Groups: groups, Client: r.string(user, "client"),
		ClientIP: r.string(request, "req_ip"), Authn: r.string(request, "authn"),
	}
	if scope := r.string(o, "scope"); scope != "" {
		p.Scopes = strings.Split(scope, " ")
	}
	if err := errors.Join(r.err, err); err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return p, nil
}
