package mesh

import (
	"fmt"
	"slices"
	"strings"
)

// Options of [Documents.Compile].
type Options struct {
	// CheckExpression returns what is wrong with a CEL expression, so that it
	// is told like any other fault. Nil takes all expressions.
	CheckExpression func(Expression) []ExpressionFault
	// CheckBinding does so for an expression that makes a string.
	CheckBinding func(Expression) []ExpressionFault
	// CheckPassword says what is wrong with a password's hash. Nil takes all.
	CheckPassword func(hash string) error
	// CheckSubject says what is wrong with a distinguished name. Nil takes all.
	CheckSubject func(name string) error
	// CheckRego says what is wrong with the modules of a policy, or else with
	// each of its queries. Nil takes all.
	CheckRego func(RegoUse) (modules Faults, queries []error)
}

// Expression is a CEL expression, with what there is to read where it stands.
type Expression struct {
	Source string
	// AtGateway says that it is evaluated at a gateway, and HasBody that bodies
	// are shown to it.
	AtGateway, HasBody bool
	// Params are the variables of the path, Data the data sets.
	Params, Data []string
}

// ExpressionFault is a fault in an expression. Line and Column count from 1
// inside the expression; zero is unknown.
type ExpressionFault struct {
	Line, Column int
	Message      string
}

// Compile validates the documents together. The error is of type [Faults] and
// holds everything that is wrong with any of them.
func (d Documents) Compile(options Options) (*Mesh, error) {
	all := d.All()
	c := &compiler{
		documents: d, options: options, mesh: &Mesh{}, faults: slices.Clone(d.faults), tenants: hasTenants(all), names: map[Kind][]string{},
	}
	for _, document := range all {
		c.names[document.ID.Kind] = append(c.names[document.ID.Kind], document.ID.Name)
	}
	for _, document := range all {
		s := scope{compiler: c, document: document}
		c.faults = append(c.faults, document.faults...)
		switch form := document.form.(type) {
		case *meshForm:
			s.meshWide(form)
		case *providerForm:
			c.mesh.Providers = append(c.mesh.Providers, s.provider(form))
		case *gatewayForm:
			c.mesh.Gateways = append(c.mesh.Gateways, s.gateway(form))
		case *serviceForm:
			c.mesh.Services = append(c.mesh.Services, s.service(form))
		case *clientForm:
			c.mesh.Clients = append(c.mesh.Clients, s.client(form))
		case *apiKeyForm:
			c.mesh.APIKeys = append(c.mesh.APIKeys, s.apiKey(form))
		case *usersForm:
			c.mesh.Users = append(c.mesh.Users, s.users(form))
		case *rolesForm:
			s.name()
		case *dataForm:
			c.mesh.Data = append(c.mesh.Data, s.data(form))
		case *regoForm:
			c.mesh.Rego = append(c.mesh.Rego, s.rego())
		}
	}
	c.mesh.Roles = c.roles(all)
	if c.meshDocument == nil && !d.incomplete {
		c.faults = append(c.faults, Fault{
			Position: Position{File: d.source},
			Message:  "there is no Mesh document: write one with kind: Mesh, a name and a trustDomain",
		})
	}
	if err := c.faults.err(); err != nil {
		return nil, err
	}
	return c.mesh, nil
}

type compiler struct {
	documents Documents
	options   Options
	mesh      *Mesh
	faults    Faults
	// names of the documents of each kind, sorted.
	names map[Kind][]string
	// tenants says that any document speaks of them.
	tenants bool
	// meshDocument is the first Mesh document.
	meshDocument *Document
}

// scope compiles one document.
type scope struct {
	*compiler
	document *Document
}

// fault notes a fault, unless it only follows from one that decoding found.
func (s scope) fault(path, format string, args ...any) {
	if !s.document.faulted(path) {
		s.faults = append(s.faults, Fault{s.document.position(path), path, fmt.Sprintf(format, args...)})
	}
}

// name checks what a document may be called.
func (s scope) name() string {
	name := s.document.ID.Name
	reserved := []string{"chancery", "control-plane", "localhost", callerPlaintext}
	if slices.Contains(reserved, name) || strings.HasPrefix(name, "chancery-") {
		s.fault("name", "%q is reserved: choose another name", name)
	}
	return name
}

// reference checks that there is a document of that name and one of the kinds,
// and returns it.
func (s scope) reference(path, name string, kinds ...Kind) *Document {
	for _, kind := range kinds {
		if document := s.documents.Get(DocumentID{kind, name}); document != nil {
			return document
		}
	}
	if s.documents.incomplete {
		return nil
	}
	var candidates, words []string
	for _, kind := range kinds {
		words = append(words, string(kind))
		candidates = append(candidates, s.names[kind]...)
	}
	s.fault(path, "there is no %s called %q%s", strings.Join(words, " or "), name, didYouMean(name, candidates))
	return nil
}

func (s scope) meshWide(form *meshForm) {
	if first := s.meshDocument; first != nil {
		s.fault("", "there is a Mesh document already, %s: remove one", first.describe())
		return
	}
	s.meshDocument = s.document
	s.mesh.Name = s.name()
	s.mesh.TrustDomain = string(form.TrustDomain)
	s.mesh.PassportLifetime = form.Passport.Lifetime.std()
	s.mesh.Certificates = s.certificates(form.Certificates)
	s.mesh.Decisions = form.Decisions.over(standardDecisions)
}

func (s scope) certificates(form certificatesForm) CertificateLifetimes {
	if form.Lifetime > form.AuthorityLifetime/2 {
		s.fault("certificates.lifetime", "is longer than half of authorityLifetime (%s), in which all workloads change to the next authority: lower it, or raise that", form.AuthorityLifetime.std())
	}
	if form.AuthorityLifetime > form.RootLifetime {
		s.fault("certificates.authorityLifetime", "is longer than rootLifetime (%s): lower it, or raise that", form.RootLifetime.std())
	}
	return CertificateLifetimes{
		Leaf:      form.Lifetime.std(),
		Authority: form.AuthorityLifetime.std(),
		Root:      form.RootLifetime.std(),
	}
}

// of returns the expression with that source, where e stands.
func (e Expression) of(source expression) Expression {
	e.Source = string(source)
	return e
}

// rule checks the condition of a route and returns where it stands.
func (s scope) rule(route string, source expression, known Expression) (string, Position) {
	s.expression(route, "allow", known.of(source), s.options.CheckExpression)
	return string(source), s.document.locate(join(route, "allow"), 1, 1)
}

// expression checks the expression of a route, unless what it may read is
// faulty.
func (s scope) expression(route, key string, e Expression, check func(Expression) []ExpressionFault) {
	path := join(route, key)
	if e.Source == "" || check == nil || slices.ContainsFunc([]string{path, join(route, "match.path"), join(route, "body")}, s.document.faulted) {
		return
	}
	for _, fault := range check(e) {
		s.faults = append(s.faults, Fault{s.document.locate(path, fault.Line, fault.Column), path, fault.Message})
	}
}

// routeNames returns the names of routes, "route-<n>" where none is written,
// and checks that each is there once.
func (s scope) routeNames(written []name) []string {
	names := make([]string, len(written))
	for i, name := range written {
		names[i] = string(name)
		if name == "" {
			names[i] = fmt.Sprintf("route-%d", i)
		}
		if first := slices.Index(names[:i], names[i]); first >= 0 {
			s.fault(fmt.Sprintf("routes[%d].name", i), "%q is the name of routes[%d]: choose another one", names[i], first)
		}
	}
	return names
}

// reachable checks that no route stands behind one that takes all its requests;
// hides tells whether route i does so to route j.
func (s scope) reachable(matches []Match, hides func(i, j int) bool) {
	for j := range matches {
		for i := range j {
			if hides(i, j) {
				s.fault(fmt.Sprintf("routes[%d].match", j),
					"is never reached, since routes[%d] (%s) takes all its requests: put it before that one, or remove it", i, matches[i])
				break
			}
		}
	}
}

func (m Match) covers(other Match) bool {
	return MethodMatches(m.Method, other.Method) && m.Path.Covers(other.Path)
}

// String returns "METHOD path", or the path alone for any method.
func (m Match) String() string {
	return strings.TrimPrefix(m.Method+" "+m.Path.String(), " ")
}

func (s scope) rateLimit(path string, form *rateLimitForm) *RateLimit {
	if form == nil {
		return nil
	}
	limit := s.bucket(path, form.Requests, form.Per, form.Burst)
	limit.By = form.By
	return &limit
}

func (s scope) bucket(path string, requests uint32, per period, burst uint32) RateLimit {
	if burst == 0 {
		burst = requests
	}
	if burst < requests {
		s.fault(path+".burst", "is less than requests (%d), which could then never be reached: raise it, or remove the key", requests)
	}
	return RateLimit{Requests: requests, Per: per.std(), Burst: burst}
}
