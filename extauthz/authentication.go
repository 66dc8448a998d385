package extauthz

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
)

// authentication is what a route demands of whoever makes a request.
type authentication struct {
	alternatives []alternative
	// kinds are those of all alternatives.
	kinds credential.Kind
	// byIssuer says that some alternatives are told apart by who issued the token.
	byIssuer   bool
	anonymous  bool
	introspect bool
	tenant     bool
	registered bool

	acr, amr []string
	maxAge   time.Duration

	// challenges are what WWW-Authenticate says to who shows nothing, to who
	// shows something bad, and to whose login is not enough.
	missing, invalid, stepUp string
}

// demands reports whether there is something that a user must have shown.
func (a *authentication) demands() bool {
	return !a.anonymous && (len(a.alternatives) > 0 || a.demandsLogin())
}

// alternative is a set of credentials that must be there together.
type alternative struct {
	kinds                credential.Kind
	accessToken, idToken string
	users                string
	certificates         *credential.CertificateNames
	// source vouches for the user.
	source string
}

// inHeaders are the kinds that [credential.Find] sees.
const inHeaders = credential.KindAccessToken | credential.KindIDToken | credential.KindAPIKey | credential.KindBasic

// loginSkew is tolerated between here and who says when somebody logged in.
const loginSkew = 30 * time.Second

// compileAuthentication compiles what p demands; realm is told to clients.
func compileAuthentication(p *chancerypb.Authentication, realm string, gateway bool) (*authentication, error) {
	a := &authentication{
		anonymous: p.GetAnonymous(), introspect: p.GetIntrospect(), tenant: p.GetTenant(), registered: p.GetRegisteredClients(),
		acr: p.GetAcr(), amr: p.GetAmr(), maxAge: p.GetMaxAge().AsDuration(),
	}
	if a.maxAge < 0 {
		return nil, errors.New("maximal age of logins must not be negative")
	}
	for _, c := range p.GetAnyOf() {
		one, err := compileAlternative(c, gateway)
		if err != nil {
			return nil, err
		}
		a.byIssuer = a.byIssuer || slices.ContainsFunc(a.alternatives, func(other alternative) bool { return other.kinds&inHeaders == one.kinds&inHeaders })
		a.alternatives = append(a.alternatives, one)
		a.kinds |= one.kinds
	}
	a.missing, a.invalid, a.stepUp = a.challenges(realm)
	return a, nil
}

func compileAlternative(c *chancerypb.Credentials, gateway bool) (alternative, error) {
	one := alternative{accessToken: c.GetAccessToken(), idToken: c.GetIdToken(), users: c.GetBasic()}
	all := mesh.Credentials{AccessToken: one.accessToken, IDToken: one.idToken, APIKey: c.GetApiKey(), Basic: one.users}
	one.source = all.Source()
	for kind, demanded := range map[credential.Kind]bool{
		credential.KindAccessToken:       one.accessToken != "",
		credential.KindIDToken:           one.idToken != "",
		credential.KindAPIKey:            c.GetApiKey(),
		credential.KindBasic:             one.users != "",
		credential.KindClientCertificate: c.GetCertificate() != nil,
	} {
		if demanded {
			one.kinds |= kind
		}
	}
	if one.kinds == 0 {
		return one, errors.New("an alternative demands no credential")
	}
	if rule := c.GetCertificate(); rule != nil && gateway {
		var err error
		one.certificates, err = credential.NewCertificateNames(rule.GetNames(), rule.GetSubjects())
		return one, err
	}
	return one, nil
}

// challenges writes what RFC 6750 section 3, RFC 7617 and RFC 9470 section 3
// want. They are the same for whatever is wrong, so that nobody learns more.
func (a *authentication) challenges(realm string) (missing, invalid, stepUp string) {
	quoted := fmt.Sprintf("realm=%q", realm)
	bearer := "Bearer " + quoted
	var others []string
	if a.kinds.Has(credential.KindBasic) {
		others = append(others, "Basic "+quoted+`, charset="UTF-8"`)
	}
	if a.kinds.Has(credential.KindAPIKey) {
		others = append(others, "ApiKey "+quoted)
	}
	hasBearer := a.kinds&(credential.KindAccessToken|credential.KindIDToken) != 0 || len(others) == 0
	join := func(first string) string {
		if !hasBearer {
			return strings.Join(others, ", ")
		}
		return strings.Join(append([]string{first}, others...), ", ")
	}
	stepUp = bearer + `, error="insufficient_user_authentication"`
	if len(a.acr) > 0 {
		stepUp += fmt.Sprintf(", acr_values=%q", strings.Join(a.acr, " "))
	}
	if a.maxAge > 0 {
		stepUp += ", max_age=" + strconv.Quote(strconv.Itoa(int(a.maxAge.Seconds())))
	}
	return join(bearer), join(bearer + `, error="invalid_token"`), stepUp
}

// choose returns the alternative that found is meant for: by which credentials
// are there, and never by which of them are good. A client certificate may be
// there in addition, since connections have it unasked. Nil with a nil error is
// nobody, who may come in.
func (a *authentication) choose(found credential.Kind) (*alternative, error) {
	for i := range a.alternatives {
		if one := &a.alternatives[i]; one.takes(found) {
			return one, nil
		}
	}
	shown := found & inHeaders
	switch {
	case shown == 0 && a.anonymous:
		return nil, nil
	case shown == 0:
		return nil, credential.Missing
	case !a.kinds.Has(shown):
		return nil, credential.Unsupported
	case slices.ContainsFunc(a.alternatives, func(one alternative) bool { return one.kinds.Has(shown) }):
		return nil, credential.Missing // a part is there
	}
	return nil, credential.Ambiguous
}

// takes reports whether found are the credentials of one.
func (one *alternative) takes(found credential.Kind) bool {
	return one.kinds&inHeaders == found&inHeaders && found.Has(one.kinds)
}

// provider is who issues the tokens of one, empty if it has none.
func (one *alternative) provider() string { return cmp.Or(one.accessToken, one.idToken) }

func (a *authentication) demandsLogin() bool { return len(a.acr) > 0 || len(a.amr) > 0 || a.maxAge > 0 }

// login judges how and when the user logged in.
func (a *authentication) login(id *credential.Identity, now time.Time) verdict {
	age := now.Sub(id.AuthTime)
	switch {
	case len(a.acr) > 0 && !slices.Contains(a.acr, id.ACR):
		return loginTooWeak
	case slices.ContainsFunc(a.amr, func(method string) bool { return !slices.Contains(id.AMR, method) }):
		return loginTooWeak
	case a.maxAge > 0 && (id.AuthTime.IsZero() || age > a.maxAge+loginSkew || age < -loginSkew):
		return loginTooOld
	}
	return allowed
}
