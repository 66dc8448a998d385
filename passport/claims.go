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

	Bound map[string]string `json:"bound,omitempty"`
}

type request struct {
	IP    string `json:"req_ip,omitempty"`
	Authn string `json:"authn,omitempty"`

	ACR      string   `json:"acr,omitempty"`
	AMR      []string `json:"amr,omitempty"`
	AuthTime int64    `json:"auth_time,omitempty"`

	CredentialID       string `json:"cred_jti,omitempty"`
	CredentialIssuedAt int64  `json:"cred_iat,omitempty"`
}

// check refuses what could not be verified, or read in two ways.
func (p *Passport) check() error {
	for _, required := range []string{p.ID, p.Subject, p.Audience, p.Gateway} {
		if !jose.IsIdentifier(required) {
			return errors.New("txn, sub, aud and req_wl must be identifiers")
		}
	}
	for _, optional := range []string{p.Provider, p.Tenant, p.Client, p.ClientIP, p.Authn, p.ACR, p.CredentialID} {
		if optional != "" && !jose.IsIdentifier(optional) {
			return errors.New("idp, tenant, client, req_ip, authn, acr and cred_jti must be identifiers")
		}
	}
	for name, fact := range p.Bound {
		if !jose.IsIdentifier(name) || !jose.IsIdentifier(fact) {
			return errors.New("what is bound must be identifiers")
		}
	}
	if !allIdentifiers(p.AMR) || !allIdentifiers(p.Groups) || !allIdentifiers(p.Scopes) ||
		slices.ContainsFunc(p.Scopes, func(s string) bool { return strings.Contains(s, " ") }) {
		return errors.New("groups, scopes and amr must be identifiers")
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
		Scope: strings.Join(p.Scopes, " "),
		User:  userInfo{Provider: p.Provider, Tenant: p.Tenant, Groups: p.Groups, Client: p.Client, Bound: p.Bound},
		Request: request{
			IP: p.ClientIP, Authn: p.Authn, ACR: p.ACR, AMR: p.AMR, AuthTime: unix(p.AuthTime),
			CredentialID: p.CredentialID, CredentialIssuedAt: unix(p.CredentialIssuedAt),
		},
	})
}

// unix leaves out what is not known.
func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
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

// moment is time for a member that need not be there.
func (r *reader) moment(o jose.Object, name string) time.Time {
	t, _, err := o.Time(name)
	r.err = errors.Join(r.err, err)
	return t
}

func (r *reader) strings(o jose.Object, name string) []string {
	list, _, err := o.Strings(name)
	r.err = errors.Join(r.err, err)
	return list
}

// facts reads an object of texts.
func (r *reader) facts(o jose.Object, name string) map[string]string {
	object := r.object(o, name)
	if object == nil {
		return nil
	}
	facts := make(map[string]string, len(object))
	for fact := range object {
		facts[fact] = r.string(object, fact)
	}
	return facts
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
	p := &Passport{
		ID: r.string(o, "txn"), Subject: r.string(o, "sub"), Audience: r.string(o, "aud"),
		Gateway: r.string(o, "req_wl"), IssuedAt: r.time(o, "iat"), ExpiresAt: r.time(o, "exp"),
		Provider: r.string(user, "idp"), Tenant: r.string(user, "tenant"), Groups: r.strings(user, "groups"), Client: r.string(user, "client"),
		ClientIP: r.string(request, "req_ip"), Authn: r.string(request, "authn"),
		Bound: r.facts(user, "bound"),
		ACR:   r.string(request, "acr"), AMR: r.strings(request, "amr"), AuthTime: r.moment(request, "auth_time"),
		CredentialID: r.string(request, "cred_jti"), CredentialIssuedAt: r.moment(request, "cred_iat"),
	}
	if scope := r.string(o, "scope"); scope != "" {
		p.Scopes = strings.Split(scope, " ")
	}
	if r.err != nil {
		return nil, r.err
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return p, nil
}
