package wire

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
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

func (r *Request) parse(data []byte) {
	r.whole = string(data)
	r.Fault = r.read(message{data, r.whole})
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

func (r *Request) read(m message) error {
	return m.read(fieldsOf(1), func(f field) error {
		if f.number != 1 {
			return nil
		}
		m, err := f.message()
		if err != nil {
			return err
		}
		return r.readAttributes(m)
	})
}

// The numbers in the following are those of Envoy's attribute_context.proto,
// address.proto and base.proto.

var attributesOnce = fieldsOf(1, 2, 4, 11, 12, 13)

func (r *Request) readAttributes(m message) error {
	r.Extensions = r.extensions[:0]
	return m.read(attributesOnce, func(f field) error {
		switch f.number {
		case 1:
			return r.Source.read(f)
		case 2:
			return r.Destination.read(f)
		case 4:
			return r.readRequest(f)
		case 10:
			return r.readExtension(f)
		case 11, 13:
			return f.ignore(&corev3.Metadata{})
		case 12:
			return f.ignore(&authv3.AttributeContext_TLSSession{})
		}
		return nil
	})
}

var peerOnce = fieldsOf(1, 2, 4, 5)

func (p *Peer) read(f field) error {
	m, err := f.message()
	if err != nil {
		return err
	}
	return m.read(peerOnce, func(f field) error {
		var ignored string
		switch f.number {
		case 1:
			return p.readAddress(f)
		case 2:
			return f.string(&ignored)
		case 3:
			_, err := readPair(f)
			return err
		case 4:
			return f.string(&p.Principal)
		case 5:
			return f.string(&p.Certificate)
		}
		return nil
	})
}

// readAddress reads one of three: a field more would be another address.
func (p *Peer) readAddress(f field) error {
	m, err := f.message()
	if err != nil {
		return err
	}
	read := 0
	return m.read(0, func(f field) error {
		if f.number >= 1 && f.number <= 3 {
			if read++; read > 1 {
				return errTwice
			}
		}
		switch f.number {
		case 1:
			return p.readSocketAddress(f)
		case 2:
			return f.ignore(&corev3.Pipe{})
		case 3:
			return f.ignore(&corev3.EnvoyInternalAddress{})
		}
		return nil
	})
}

var socketAddressOnce = fieldsOf(1, 2, 3, 4, 5, 6, 7)

func (p *Peer) readSocketAddress(f field) error {
	m, err := f.message()
	if err != nil {
		return err
	}
	return m.read(socketAddressOnce, func(f field) error {
		var ignored string
		var number int64
		switch f.number {
		case 1, 6:
			return f.int(&number)
		case 2:
			return f.string(&p.Address)
		case 3:
			err := f.int(&number)
			p.Port = uint32(number)
			return err
		case 4, 5, 7:
			return f.string(&ignored)
		}
		return nil
	})
}

func (r *Request) readRequest(f field) error {
	m, err := f.message()
	if err != nil {
		return err
	}
	return m.read(fieldsOf(1, 2), func(f field) error {
		switch f.number {
		case 1:
			return readTime(f)
		case 2:
			return r.readHTTP(f)
		}
		return nil
	})
}

var httpOnce = fieldsOf(1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)

func (r *Request) readHTTP(f field) error {
	m, err := f.message()
	if err != nil {
		return err
	}
	r.HTTP = true
	return m.read(httpOnce, func(f field) error {
		switch f.number {
		case 1:
			return f.string(&r.ID)
		case 2:
			return f.string(&r.Method)
		case 3:
			return r.readMerged(f)
		case 4:
			return f.string(&r.Path)
		case 5:
			return f.string(&r.Host)
		case 6:
			return f.string(&r.Scheme)
		case 7:
			return f.string(&r.Query)
		case 8:
			return f.string(&r.Fragment)
		case 9:
			return f.int(&r.Size)
		case 10:
			return f.string(&r.Protocol)
		case 11:
			return f.string(&r.Body)
		case 12:
			return f.bytes(&r.RawBody)
		case 13:
			return r.readHeaderMap(f)
		}
		return nil
	})
}

func (r *Request) readHeaderMap(f field) error {
	m, err := f.message()
	if err != nil {
		return err
	}
	r.Headers = r.headers[:0]
	return m.read(0, func(f field) error {
		if f.number != 1 {
			return nil
		}
		return r.readHeader(f)
	})
}

var headerOnce = fieldsOf(1, 2, 3)

func (r *Request) readHeader(f field) error {
	m, err := f.message()
	if err != nil {
		return err
	}
	var h Pair
	var raw string
	err = m.read(headerOnce, func(f field) error {
		switch f.number {
		case 1:
			return f.string(&h.Name)
		case 2:
			return f.string(&h.Value)
		case 3:
			return f.bytes(&raw)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case raw != "" && h.Value != "":
		return errTwice
	case raw != "":
		h.Value = raw
	}
	r.Headers = append(r.Headers, h)
	return nil
}

func (r *Request) readMerged(f field) error {
	if r.Merged == nil {
		r.Merged = make([]Pair, 0, usualHeaders)
	}
	p, err := readPair(f)
	r.Merged = append(r.Merged, p)
	return err
}

func (r *Request) readExtension(f field) error {
	p, err := readPair(f)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(r.Extensions, func(e Pair) bool { return e.Name == p.Name }) {
		return errTwice
	}
	r.Extensions = append(r.Extensions, p)
	return nil
}

var timeOnce = fieldsOf(1, 2)

func readTime(f field) error {
	m, err := f.message()
	if err != nil {
		return err
	}
	return m.read(timeOnce, func(f field) error {
		var ignored int64
		if f.number > 2 {
			return nil
		}
		return f.int(&ignored)
	})
}

var pairOnce = fieldsOf(1, 2)

// readPair reads an entry of a map.
func readPair(f field) (p Pair, err error) {
	m, err := f.message()
	if err != nil {
		return p, err
	}
	return p, m.read(pairOnce, func(f field) error {
		switch f.number {
		case 1:
			return f.string(&p.Name)
		case 2:
			return f.string(&p.Value)
		}
		return nil
	})
}
