package policy

import (
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"cel.dev/cel-go/cel"

	"github.com/chancery-mesh/chancery/mesh"
)

// Input is what a rule judges. Empty strings, nil slices and nil maps are what
// the request does not have. It is of one request and one goroutine, and must
// not change once it is judged.
type Input struct {
	User    User
	Client  Client
	Caller  Caller
	Tenant  string
	Request Request
	Params  map[string]string
	Now     time.Time
	// Bound are the facts of the call that the Passport carries.
	Bound map[string]string
	// Tables are the documents' own; nil has none.
	Tables *Tables
}

// User is on whose behalf the request is made.
type User struct {
	ID     string
	Groups []string
	Scopes []string
	// ACR, AMR and AuthTime are of the user's login.
	ACR      string
	AMR      []string
	AuthTime time.Time
	// Provider vouches for the user: an identity provider, or what stands for one.
	Provider string

	tables             *Tables
	roles, permissions memo
}

// Client is the OAuth client that the user's token was issued to, or whose API
// key it is. Owner and Plan are of its document.
type Client struct{ ID, Owner, Plan string }

// Passport is what the Passport says beyond the user.
type Passport struct{ Bound map[string]string }

// Caller is the workload on the other side of the connection.
type Caller struct {
	// ID is its SPIFFE ID, Role and Name the two parts of its path.
	ID, Role, Name string
}

// Request is what is asked.
type Request struct {
	Method string
	// Path is without the query, as it was sent, and canonical; rules read its one
	// spelling ([mesh.NormalPath]).
	Path string
	// Host is as it was sent; rules read the name alone.
	Host string
	// IP is the client's address.
	IP string
	// Target is the path with the query, as it was sent.
	Target string
	// Body is JSON; nil has none. It is parsed when a rule reads it.
	Body []byte
	// Query is as it was sent; it is decoded when a rule reads it.
	Query string
	// Headers returns the lines of each header, by its name in lower case. It
	// is called when a rule reads them. Nil has none.
	Headers func() map[string][]string

	body, query, headers memo
}

// memo keeps what is made when a rule first reads it: in a loop, a rule reads
// it again and again, at the price of looking it up.
type memo struct {
	made  bool
	value any
}

// once returns what read makes, from memory if it did so before.
func once[T any](of func(*T) *memo, read func(*T) any) func(*T) any {
	return func(object *T) any {
		m := of(object)
		if !m.made {
			m.made, m.value = true, read(object)
		}
		return m.value
	}
}

var _ cel.Activation = (*Input)(nil)

// ResolveName implements [cel.Activation].
func (in *Input) ResolveName(name string) (any, bool) {
	switch name {
	case "user":
		in.User.tables = in.Tables
		return &in.User, true
	case "passport":
		return &Passport{in.Bound}, true
	case "data":
		return in.Tables.all(), true
	case "client":
		return &in.Client, true
	case "caller":
		return &in.Caller, true
	case "request":
		return &in.Request, true
	case "tenant":
		return in.Tenant, in.Tenant != ""
	case "params":
		return in.Params, in.Params != nil
	case "now":
		return in.Now, !in.Now.IsZero()
	}
	return nil, false
}

// Parent implements [cel.Activation].
func (in *Input) Parent() cel.Activation { return nil }

func (r *Request) readPath() any { return text(mesh.NormalPath(r.Path)) }

func (r *Request) readHost() any { return text(hostName(r.Host)) }

func (r *Request) readHeaders() any {
	if r.Headers == nil {
		return nil
	}
	headers := r.Headers()
	for _, lines := range headers {
		for _, line := range lines {
			if !utf8.ValidString(line) {
				return nil
			}
		}
	}
	return headers
}

func (r *Request) readQuery() any {
	query, err := url.ParseQuery(r.Query)
	if err != nil || strings.Contains(r.Query, "#") { // some take a fragment for a part of it
		return nil
	}
	for name, values := range query {
		if !utf8.ValidString(name) {
			return nil
		}
		for _, v := range values {
			if !utf8.ValidString(v) {
				return nil
			}
		}
	}
	return map[string][]string(query)
}
