package wire

import (
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
)

// Request is a CheckRequest, so far as decisions go by it; [Request.Message]
// has the rest. Its strings are parts of one: clone what is kept for long.
type Request struct {
	// Fault says why it could not be read. Nothing else counts then.
	Fault error

	Source, Destination Peer
	// HTTP says that there is an HTTP request at all.
	HTTP                              bool
	ID, Method, Path, Host            string
	Scheme, Query, Fragment, Protocol string
	Size                              int64
	// Body is empty where Envoy sends it raw, and RawBody otherwise.
	Body, RawBody string
	// Headers are the lines as they came, Merged those with one line for each
	// name. Envoy sends one of the two. Merged lines of one name, which it
	// does not send, would follow each other.
	Headers, Merged []Pair
	// Extensions each have a name of their own.
	Extensions []Pair

	whole string
	// Room for usual numbers of each.
	headers    [usualHeaders]Pair
	extensions [4]Pair
}

const usualHeaders = 24

// Pair is a name with a value. The value of a header may be any bytes.
type Pair struct{ Name, Value string }

// Peer is one side of the connection.
type Peer struct {
	// Address is that of a socket, empty for others, and Port its number.
	Address                string
	Port                   uint32
	Principal, Certificate string
}

// ParseRequest reads an encoded CheckRequest.
func ParseRequest(data []byte) *Request {
	r := &Request{}
	r.parse(data)
	return r
}

// FromMessage is [ParseRequest] of a message that Envoy might have sent.
func FromMessage(m *authv3.CheckRequest) *Request {
	data, err := proto.Marshal(m)
	if err != nil {
		return &Request{Fault: errMalformed}
	}
	return ParseRequest(data)
}

func (r *Request) parse(data []byte) {
	r.whole = string(data)
	r.Headers, r.Extensions = r.headers[:0], r.extensions[:0]
	in := source{data: data, text: r.whole}
	r.readCheck(message{source: &in, end: len(data), once: checkOnce})
	r.Fault = in.fault
}

// Message returns all of the request.
func (r *Request) Message() (*authv3.CheckRequest, error) {
	if r.Fault != nil {
		return nil, r.Fault
	}
	m := &authv3.CheckRequest{}
	return m, proto.Unmarshal([]byte(r.whole), m)
}

// Extension returns a context extension, empty if there is none.
func (r *Request) Extension(name string) string {
	for _, e := range r.Extensions {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}
