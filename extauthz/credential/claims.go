package credential

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/jose"
)

// ClaimPath says where a claim is. It is the name of one member of the claims,
// dots and all; or, beginning with a slash, a JSON Pointer (RFC 6901) to a member
// of an object in them: /realm_access/roles. So a path has one meaning, whatever
// members a token has; the member "/x" is at /~1x.
type ClaimPath []string

// ParseClaimPath reads a path. The empty one is nowhere.
func ParseClaimPath(s string) (ClaimPath, error) {
	pointer, nested := strings.CutPrefix(s, "/")
	switch {
	case s == "":
		return nil, nil
	case !nested:
		return ClaimPath{s}, nil
	}
	path := strings.Split(pointer, "/")
	for i, name := range path {
		if strings.Contains(pointerEscapes.Replace(name), "~") {
			return nil, fmt.Errorf("claim %q: write ~0 for ~, and ~1 for / in a name", s)
		}
		path[i] = pointerNames.Replace(name)
	}
	if slices.Contains(path, "") {
		return nil, fmt.Errorf("claim %q: a name in it is empty", s)
	}
	return path, nil
}

var (
	pointerEscapes = strings.NewReplacer("~0", "", "~1", "")
	pointerNames   = strings.NewReplacer("~0", "~", "~1", "/")
)

// find returns the object that the member of name is in, if there is one.
func (p ClaimPath) find(claims jose.Object) (in jose.Object, name string) {
	if len(p) == 0 {
		return nil, ""
	}
	for _, name := range p[:len(p)-1] {
		claims, _ = claims[name].(jose.Object)
	}
	return claims, p[len(p)-1]
}

// claimMapping says which claims the identity is read from.
type claimMapping struct {
	user, groups, tenant ClaimPath
	// client is nil if it is of the first of clientClaims that is there.
	client ClaimPath
}

var (
	// clientClaims have the client that a token was issued to: RFC 9068, OpenID
	// Connect and most others, Entra's first version, Okta.
	clientClaims = []string{"client_id", "azp", "appid", "cid"}
	// scopeClaims are the standard's, and that of Entra and Okta.
	scopeClaims = []string{"scope", "scp"}
)

func newClaimMapping(m *chancerypb.ClaimMapping) (claimMapping, error) {
	var mapping claimMapping
	var errs [4]error
	mapping.user, errs[0] = ParseClaimPath(cmp.Or(m.GetUser(), "sub"))
	mapping.groups, errs[1] = ParseClaimPath(cmp.Or(m.GetGroups(), "groups"))
	mapping.tenant, errs[2] = ParseClaimPath(m.GetTenant())
	mapping.client, errs[3] = ParseClaimPath(m.GetClient())
	return mapping, errors.Join(errs[:]...)
}

// identity reads whom the claims are about, and with what rights.
func (m *claimMapping) identity(claims jose.Object) (*Identity, error) {
	var id Identity
	var err error
	if id.User, err = identifierAt(claims, m.user); err != nil || id.User == "" {
		return nil, BadClaim
	}
	if m.user.isEmail() && !isVerifiedEmail(claims, id.User) {
		return nil, BadClaim
	}
	if id.Tenant, err = identifierAt(claims, m.tenant); err != nil {
		return nil, err
	}
	if id.token.client, err = first(claims, clientClaims); err != nil {
		return nil, err
	}
	id.Client = id.token.client
	if m.client != nil {
		if id.Client, err = identifierAt(claims, m.client); err != nil {
			return nil, err
		}
	}
	in, name := m.groups.find(claims)
	if id.Groups, err = list(in, name); err != nil {
		return nil, err
	}
	if id.Scopes, err = scopes(claims); err != nil {
		return nil, err
	}
	return &id, id.describe(claims)
}

func (p ClaimPath) isEmail() bool { return len(p) == 1 && p[0] == "email" }

// isVerifiedEmail reports whether an address names who has it: others may write
// any address into their account. Of one with two at signs readers take
// different domains.
func isVerifiedEmail(claims jose.Object, address string) bool {
	return claims["email_verified"] == true && strings.Count(address, "@") == 1
}

// describe reads what the standards have names for.
func (id *Identity) describe(claims jose.Object) error {
	var err error
	if id.Subject, err = identifier(claims, "sub"); err != nil {
		return err
	}
	if id.ID, err = identifier(claims, "jti"); err != nil {
		return err
	}
	id.IssuedAt, _, _ = claims.Time("iat") // checkTimes refused what is none
	// Some providers have their own forms of these. What is not in the standard
	// form tells nothing, so it is as good as no login where one is demanded.
	if acr, _, _ := claims.String("acr"); jose.IsIdentifier(acr) {
		id.ACR = acr
	}
	if amr, _, _ := claims.Strings("amr"); !slices.ContainsFunc(amr, func(s string) bool { return !jose.IsIdentifier(s) }) {
		id.AMR = amr
	}
	id.AuthTime, _, _ = claims.Time("auth_time")
	return nil
}

func identifierAt(claims jose.Object, path ClaimPath) (string, error) {
	in, name := path.find(claims)
	return identifier(in, name)
}

// identifier reads a claim that names somebody; empty only if it is absent.
func identifier(claims jose.Object, name string) (string, error) {
	s, present, err := claims.String(name)
	if err != nil || present && !jose.IsIdentifier(s) {
		return "", BadClaim
	}
	return s, nil
}

// first reads the first of the claims that is there.
func first(claims jose.Object, names []string) (string, error) {
	for _, name := range names {
		if s, err := identifier(claims, name); err != nil || s != "" {
			return s, err
		}
	}
	return "", nil
}

// list reads a claim with names in an array, or in a string where single spaces
// separate them (RFC 6749 section 3.3); nil only if it is absent.
func list(claims jose.Object, name string) ([]string, error) {
	names := []string{}
	switch v := claims[name].(type) {
	case nil:
		if _, present := claims[name]; !present {
			return nil, nil
		}
		return nil, BadClaim
	case string:
		if v != "" {
			names = strings.Split(v, " ")
		}
	default:
		var err error
		if names, _, err = claims.Strings(name); err != nil {
			return nil, BadClaim
		}
	}
	if slices.ContainsFunc(names, func(s string) bool { return !jose.IsIdentifier(s) }) {
		return nil, BadClaim
	}
	return names, nil
}

// scopes reads the first of scopeClaims that is there, in either form of a
// list. A scope has no space in it.
func scopes(claims jose.Object) ([]string, error) {
	for _, name := range scopeClaims {
		names, err := list(claims, name)
		if err != nil || slices.ContainsFunc(names, func(s string) bool { return strings.Contains(s, " ") }) {
			return nil, BadClaim
		}
		if names != nil {
			return names, nil
		}
	}
	return nil, nil
}
