package passport

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/internal/jose"
)

// check refuses what could not be verified, or read in two ways.
func (p *Passport) check() error {
	for _, required := range []string{p.ID, p.Subject, p.Audience, p.Gateway} {
		if !jose.IsIdentifier(required) {
			return errors.New("txn, sub, aud and req_wl must be identifiers")
		}
	}
	for _, optional := range []string{p.Provider, p.Tenant, p.Client, p.ClientIP, p.Authn, p.ACR, p.CredentialSubject} {
		if optional != "" && !jose.IsIdentifier(optional) {
			return errors.New("idp, tenant, client, req_ip, authn, acr and cred_sub must be identifiers")
		}
	}
	for name, fact := range p.Bound {
		if !jose.IsIdentifier(name) || !jose.IsIdentifier(fact) {
			return errors.New("what is bound must be identifiers")
		}
	}
	if !allIdentifiers(p.AMR) || !allIdentifiers(p.Groups) || !allIdentifiers(p.Scopes) || !allIdentifiers(p.CredentialIDs) ||
		slices.ContainsFunc(p.Scopes, func(s string) bool { return strings.Contains(s, " ") }) {
		return errors.New("groups, scopes, amr and cred_jti must be identifiers")
	}
	if p.IssuedAt.IsZero() || !p.ExpiresAt.After(p.IssuedAt) {
		return errors.New("iat and exp must be there, and exp after iat")
	}
	return nil
}

func allIdentifiers(list []string) bool {
	return !slices.ContainsFunc(list, func(s string) bool { return !jose.IsIdentifier(s) })
}

// encode writes the claims. It is not encoding/json's work, since a gateway does
// it for each request; the names are those that [Passport.claim] and the two
// below it read.
func (p *Passport) encode() []byte {
	b := make([]byte, 0, usualClaims)
	b = strconv.AppendInt(append(b, `{"iat":`...), p.IssuedAt.Unix(), 10)
	b = strconv.AppendInt(append(b, `,"exp":`...), p.ExpiresAt.Unix(), 10)
	b = jose.AppendString(append(b, `,"aud":`...), p.Audience)
	b = jose.AppendString(append(b, `,"txn":`...), p.ID)
	b = jose.AppendString(append(b, `,"sub":`...), p.Subject)
	b = jose.AppendString(append(b, `,"scope":`...), strings.Join(p.Scopes, " "))
	b = jose.AppendString(append(b, `,"req_wl":`...), p.Gateway)
	return append(p.appendRequest(p.appendUser(b)), '}')
}

func (p *Passport) appendUser(b []byte) []byte {
	o := object{append(b, `,"tctx":`...), '{'}
	o.text("idp", p.Provider)
	o.text("tenant", p.Tenant)
	if p.Groups != nil {
		o.texts("groups", p.Groups)
	}
	o.text("client", p.Client)
	if len(p.Bound) > 0 {
		o.name("bound")
		bound := object{o.b, '{'}
		for _, fact := range slices.Sorted(maps.Keys(p.Bound)) {
			bound.text(fact, p.Bound[fact])
		}
		o.b = bound.end()
	}
	return o.end()
}

func (p *Passport) appendRequest(b []byte) []byte {
	o := object{append(b, `,"rctx":`...), '{'}
	o.text("req_ip", p.ClientIP)
	o.text("authn", p.Authn)
	o.text("acr", p.ACR)
	if len(p.AMR) > 0 {
		o.texts("amr", p.AMR)
	}
	o.time("auth_time", p.AuthTime)
	if len(p.CredentialIDs) > 0 {
		o.texts("cred_jti", p.CredentialIDs)
	}
	o.text("cred_sub", p.CredentialSubject)
	o.time("cred_iat", p.CredentialIssuedAt)
	return o.end()
}

// usualClaims has room for claims without many groups.
const usualClaims = 768

// object is one that is being written. Before is what stands before the next
// member.
type object struct {
	b      []byte
	before byte
}

func (o *object) name(name string) {
	o.b = append(jose.AppendString(append(o.b, o.before), name), ':')
	o.before = ','
}

// text writes a member, unless it is not known.
func (o *object) text(name, value string) {
	if value != "" {
		o.name(name)
		o.b = jose.AppendString(o.b, value)
	}
}

func (o *object) texts(name string, list []string) {
	o.name(name)
	o.b = append(o.b, '[')
	for i, s := range list {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = jose.AppendString(o.b, s)
	}
	o.b = append(o.b, ']')
}

func (o *object) time(name string, t time.Time) {
	if !t.IsZero() {
		o.name(name)
		o.b = strconv.AppendInt(o.b, t.Unix(), 10)
	}
}

func (o *object) end() []byte {
	if o.before == '{' {
		o.b = append(o.b, '{')
	}
	return append(o.b, '}')
}

// decode reads claims. Members that it does not know may be there.
func decode(claims []byte) (*Passport, error) {
	in, err := jose.NewParser(claims)
	if err != nil {
		return nil, err
	}
	p := &Passport{}
	err = in.Object(func(name string) error { return p.claim(in, name) })
	if err == nil {
		err = in.End()
	}
	if err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return p, nil
}

func (p *Passport) claim(in *jose.Parser, name string) (err error) {
	switch name {
	case "iat":
		p.IssuedAt, err = in.Time()
	case "exp":
		p.ExpiresAt, err = in.Time()
	case "aud":
		p.Audience, err = in.String()
	case "txn":
		p.ID, err = in.String()
	case "sub":
		p.Subject, err = in.String()
	case "scope":
		var scope string
		if scope, err = in.String(); scope != "" {
			p.Scopes = strings.Split(scope, " ")
		}
	case "req_wl":
		p.Gateway, err = in.String()
	case "tctx":
		err = in.Object(func(name string) error { return p.userClaim(in, name) })
	case "rctx":
		err = in.Object(func(name string) error { return p.requestClaim(in, name) })
	default:
		err = in.Skip()
	}
	return err
}

func (p *Passport) userClaim(in *jose.Parser, name string) (err error) {
	switch name {
	case "idp":
		p.Provider, err = in.String()
	case "tenant":
		p.Tenant, err = in.String()
	case "groups":
		p.Groups, err = in.Strings()
	case "client":
		p.Client, err = in.String()
	case "bound":
		err = in.Object(func(name string) error { return p.fact(in, name) })
	default:
		err = in.Skip()
	}
	return err
}

func (p *Passport) fact(in *jose.Parser, name string) (err error) {
	if p.Bound == nil {
		p.Bound = map[string]string{}
	}
	p.Bound[name], err = in.String()
	return err
}

func (p *Passport) requestClaim(in *jose.Parser, name string) (err error) {
	switch name {
	case "req_ip":
		p.ClientIP, err = in.String()
	case "authn":
		p.Authn, err = in.String()
	case "acr":
		p.ACR, err = in.String()
	case "amr":
		if p.AMR, err = in.Strings(); len(p.AMR) == 0 {
			p.AMR = nil
		}
	case "auth_time":
		p.AuthTime, err = in.Time()
	case "cred_jti":
		if p.CredentialIDs, err = in.Strings(); len(p.CredentialIDs) == 0 {
			p.CredentialIDs = nil
		}
	case "cred_sub":
		p.CredentialSubject, err = in.String()
	case "cred_iat":
		p.CredentialIssuedAt, err = in.Time()
	default:
		err = in.Skip()
	}
	return err
}
