package mesh

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// KindTest is the kind of documents that stand beside the others and are no part
// of the mesh: [ReadTests] reads them, and [ReadDir] does not.
const KindTest Kind = "Test"

// Test is requests to one gateway or service, with what shall be decided about
// them.
type Test struct {
	Name string
	// Gateway or Service is the one that decides; the other is empty.
	Gateway, Service string
	Cases            []TestCase
}

// TestCase is one request.
type TestCase struct {
	Name     string
	Position Position
	Request  TestRequest
	// With are the credentials that come with it.
	With TestCredentials
	// Caller is the gateway or service that calls a service, empty for a
	// connection in the clear.
	Caller string
	// At is when it is made; zero is now.
	At time.Time
	// Allow is what shall be decided. Status, Reason and Route are zero where they
	// do not matter; Route is a route's name.
	Allow         bool
	Status        int
	Reason, Route string
}

// TestRequest is what is asked.
type TestRequest struct {
	Method, Host string
	// Target is the path with the query.
	Target string
	IP     string
	// Headers are in order, each with its name and value.
	Headers [][2]string
	// Body is JSON; nil has none.
	Body []byte
}

// TestCredentials are those that come with a request. Nil and empty are not there.
type TestCredentials struct {
	AccessToken, IDToken, Passport *Person
	// APIKey is the ID of an APIKey, Basic the name of a user.
	APIKey, Basic string
	// Certificate has the names of a client's certificate, and Subject its subject
	// (RFC 4514).
	Certificate []string
	Subject     string
	// Bound are facts of the call that the Passport carries, and Shown the kinds of
	// credentials that it was minted for, in the words of package credential.
	Bound map[string]string
	Shown []string
}

// Person is who a token or a Passport speaks for.
type Person struct {
	// Provider is who vouches for them, in a Passport as [Credentials.Source] has
	// it; empty in one for the first IdentityProvider that its gateway may name.
	Provider             string
	User, Tenant, Client string
	Groups, Scopes       []string
	ACR                  string
	AMR                  []string
	// LoggedIn is how long ago they logged in.
	LoggedIn time.Duration
	// Claims are further claims of tokens, or others in place of those above.
	Claims map[string]any
}

// ReadTests reads the Test documents in all *.test.yaml and *.test.yml files of a
// directory. The error is about reading alone: what is wrong with the documents
// is told by [Documents.CompileTests].
func ReadTests(dir string) (Documents, error) {
	files, err := readFiles(dir, isTestFile)
	if err != nil {
		return Documents{}, err
	}
	return parseFiles(dir, files, KindTest), nil
}

// isTestFile tells the files of tests from those of the mesh.
func isTestFile(name string) bool {
	return strings.HasSuffix(name, ".test.yaml") || strings.HasSuffix(name, ".test.yml")
}

// CompileTests validates Test documents against the mesh that they are for, with
// the options of that. The error is of type [Faults] and holds everything that is
// wrong with any of them.
func (d Documents) CompileTests(m *Mesh, options Options) ([]*Test, error) {
	c := &compiler{documents: d, options: options, mesh: m, faults: slices.Clone(d.faults)}
	var tests []*Test
	for _, document := range d.All() {
		s := scope{compiler: c, document: document}
		c.faults = append(c.faults, document.faults...)
		if form, ok := document.form.(*testForm); ok {
			tests = append(tests, s.test(form))
		}
	}
	if err := c.faults.err(); err != nil {
		return nil, err
	}
	return tests, nil
}

func (s scope) test(form *testForm) *Test {
	t := &Test{Name: s.document.ID.Name, Gateway: form.Gateway, Service: form.Service}
	switch {
	case (form.Gateway == "") == (form.Service == ""):
		s.fault("", "must say who decides: write either gateway or service")
	case form.Gateway != "":
		s.known("gateway", form.Gateway, "Gateway", namesOf(s.mesh.Gateways, func(g *Gateway) string { return g.Name }))
	default:
		s.known("service", form.Service, "Service", namesOf(s.mesh.Services, func(v *Service) string { return v.Name }))
	}
	for i, c := range form.Cases {
		t.Cases = append(t.Cases, s.testCase(fmt.Sprintf("cases[%d]", i), form, c))
	}
	return t
}

func namesOf[T any](list []T, name func(T) string) []string {
	names := make([]string, len(list))
	for i, v := range list {
		names[i] = name(v)
	}
	return names
}

// known checks that a name is one of those that the mesh has.
func (s scope) known(path, name, what string, names []string) {
	if !slices.Contains(names, name) {
		s.fault(path, "there is no %s called %q%s", what, name, didYouMean(name, names))
	}
}

func (s scope) testCase(path string, test *testForm, form caseForm) TestCase {
	c := TestCase{
		Name: form.Name, Position: s.document.position(path), Request: s.testRequest(path+".request", form.Request),
		With: s.with(path+".with", test, form.With), Caller: form.Caller, At: form.At.Time,
		Allow: form.Expect == "allow", Status: int(form.Status), Reason: form.Reason, Route: form.Route,
	}
	if c.Allow && (c.Status != 0 || c.Reason != "") {
		s.fault(path+".expect", "is allow, which has neither status nor reason: remove them, or write deny")
	}
	if c.Caller != "" {
		names := append(namesOf(s.mesh.Services, func(v *Service) string { return v.Name }),
			namesOf(s.mesh.Gateways, func(g *Gateway) string { return g.Name })...)
		s.known(path+".caller", c.Caller, "Gateway or Service", names)
		if test.Gateway != "" {
			s.fault(path+".caller", "calls a gateway, which knows no callers: write the credentials below with")
		}
	}
	return c
}

func (s scope) testRequest(path string, form testRequestForm) TestRequest {
	r := TestRequest{Method: form.Method, Host: form.Host, Target: form.Path, IP: form.IP}
	if _, err := netip.ParseAddr(form.IP); err != nil {
		s.fault(path+".ip", "%q is no IP address", form.IP)
	}
	if !strings.HasPrefix(form.Path, "/") {
		s.fault(path+".path", "must start with \"/\"")
	}
	for i, header := range form.Headers {
		name, value, ok := strings.Cut(header, ":")
		if !ok || name == "" || strings.TrimSpace(name) != name {
			s.fault(fmt.Sprintf("%s.headers[%d]", path, i), "is no header: write a name, a colon and a value, such as \"x-tier: gold\"")
		}
		r.Headers = append(r.Headers, [2]string{name, strings.TrimSpace(value)})
	}
	if form.Body != nil {
		body, err := json.Marshal(form.Body)
		if err != nil {
			panic(err) // The decoder takes nothing that JSON has not.
		}
		r.Body = body
		r.Headers = append(r.Headers, [2]string{"content-type", "application/json"})
	}
	return r
}

func (s scope) with(path string, test *testForm, form withForm) TestCredentials {
	c := TestCredentials{
		AccessToken: s.holder(path+".accessToken", test, form.AccessToken), IDToken: s.holder(path+".idToken", test, form.IDToken),
		Passport: s.passenger(path+".passport", test, form), APIKey: form.APIKey, Basic: form.Basic, Shown: form.Shown,
	}
	if form.Bound != nil {
		c.Bound = map[string]string{}
	}
	for name, value := range form.Bound {
		c.Bound[name] = string(value)
	}
	if form.ClientCertificate != nil {
		c.Certificate, c.Subject = s.testCertificate(path+".clientCertificate", form.ClientCertificate)
	}
	if c.APIKey != "" {
		s.known(path+".apiKey", c.APIKey, "APIKey", namesOf(s.mesh.APIKeys, func(k *APIKey) string { return k.ID }))
	}
	if c.Basic != "" {
		var users []string
		for _, u := range s.mesh.Users {
			users = append(users, namesOf(u.Users, func(u User) string { return u.Name })...)
		}
		s.known(path+".basic", c.Basic, "user in Users", users)
	}
	switch {
	case test.Gateway != "" && (form.Passport != "" || form.Bound != nil):
		s.fault(path, "has a Passport, which gateways make and do not take")
	case test.Service != "" && (form.AccessToken+form.IDToken+c.APIKey+c.Basic != "" || form.ClientCertificate != nil):
		s.fault(path, "has credentials that services do not see: write passport, and those that it was made for below shown")
	}
	return c
}

// testCertificate returns the names of a certificate, and its subject.
func (s scope) testCertificate(path string, form *testCertificate) (names []string, subject string) {
	if form.Names == nil && form.Subject == "" {
		s.fault(path, "names no certificate: write names or subject")
		return nil, ""
	}
	if subject = form.Subject; subject != "" && !strings.Contains(subject, "=") {
		subject = "CN=" + subject
	}
	if subject != "" {
		s.subject(path+".subject", subject)
	}
	return texts(form.Names), subject
}

// holder returns who a token is of, nil where there is no name.
func (s scope) holder(path string, test *testForm, name string) *Person {
	p := s.person(path, test, name)
	if p != nil {
		p.Provider = s.issuer(path, test, name)
	}
	return p
}

// passenger returns who a Passport is of, nil where there is no name. Who vouches
// for them goes by what they showed, in the order of [Credentials.Source].
func (s scope) passenger(path string, test *testForm, form withForm) *Person {
	p := s.person(path, test, form.Passport)
	shown := func(kind string) bool { return slices.Contains(form.Shown, kind) }
	switch {
	case p == nil:
	case shown("access_token"), shown("id_token"):
		p.Provider = s.issuer(path, test, form.Passport)
	case shown("basic"):
		p.Provider = SourceUsers(s.passwords(path, test, form.Passport))
	case shown("api_key"):
		p.Provider = SourceAPIKeys
	default:
		p.Provider = SourceCertificates
	}
	return p
}

// person returns one of a test's people, nil where there is no name.
func (s scope) person(path string, test *testForm, name string) *Person {
	if name == "" {
		return nil
	}
	form, ok := test.People[name]
	if !ok {
		s.fault(path, "there is nobody called %q in people%s", name, didYouMean(name, slices.Sorted(maps.Keys(test.People))))
		return nil
	}
	p := &Person{
		User: form.User, Tenant: form.Tenant, Client: form.Client, Groups: form.Groups, Scopes: form.Scopes,
		ACR: form.ACR, AMR: form.AMR, LoggedIn: form.LoggedIn.std(), Claims: form.Claims,
	}
	if p.User == "" {
		p.User = name
	}
	if form.Provider != "" {
		s.known("people."+name+".provider", form.Provider, "IdentityProvider", s.issuers())
	}
	if form.Basic != "" {
		s.known("people."+name+".basic", form.Basic, "Users", s.userLists())
	}
	return p
}

func (s scope) issuers() []string {
	return namesOf(s.mesh.Providers, func(p *IdentityProvider) string { return p.Name })
}

func (s scope) userLists() []string {
	return namesOf(s.mesh.Users, func(u *Users) string { return u.Name })
}

// issuer returns the IdentityProvider of a person's tokens; none where it does
// not matter which.
func (s scope) issuer(path string, test *testForm, name string) string {
	issuers := s.issuers()
	switch written := test.People[name].Provider; {
	case written != "":
		return written
	case len(issuers) == 0:
		s.fault(path, "takes a token, which no IdentityProvider is there to issue: write another credential, for a Passport below shown")
	case len(issuers) == 1:
		return issuers[0]
	case test.Gateway != "":
		s.fault("people."+name, "must name a provider, since there are %d: write provider", len(issuers))
	}
	return ""
}

// passwords returns the Users document that knows a person's password.
func (s scope) passwords(path string, test *testForm, name string) string {
	lists := s.userLists()
	switch written := test.People[name].Basic; {
	case written != "":
		return written
	case len(lists) == 0:
		s.fault(path, "was made for a password, and there is no Users document that knows any: write another credential below shown")
	case len(lists) == 1:
		return lists[0]
	default:
		s.fault("people."+name, "must name a Users document, since there are %d: write basic", len(lists))
	}
	return ""
}
