package wire

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
)

// Each function here reads one message. The numbers are those of Envoy's
// attribute_context.proto, address.proto and base.proto; whatever else there is
// is newer than this, and of no concern to it.

// Fields that stand once; the others may be repeated.
var (
	checkOnce         = fieldsOf(1)
	attributesOnce    = fieldsOf(1, 2, 4, 11, 12, 13)
	peerOnce          = fieldsOf(1, 2, 4, 5)
	socketAddressOnce = fieldsOf(1, 2, 3, 4, 5, 6, 7)
	requestOnce       = fieldsOf(1, 2)
	timeOnce          = fieldsOf(1, 2)
	httpOnce          = fieldsOf(1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)
	headerOnce        = fieldsOf(1, 2, 3)
	pairOnce          = fieldsOf(1, 2)
)

func (r *Request) readCheck(m message) {
	for m.next() {
		if m.number == 1 {
			r.readAttributes(m.message(attributesOnce))
		}
	}
}

func (r *Request) readAttributes(m message) {
	for m.next() {
		switch m.number {
		case 1:
			r.Source.read(m.message(peerOnce))
		case 2:
			r.Destination.read(m.message(peerOnce))
		case 4:
			r.readRequest(m.message(requestOnce))
		case 10:
			r.readExtension(m.message(pairOnce))
		case 11, 13:
			m.ignore((*corev3.Metadata)(nil))
		case 12:
			m.ignore((*authv3.AttributeContext_TLSSession)(nil))
		}
	}
}

func (p *Peer) read(m message) {
	var ignored string
	for m.next() {
		switch m.number {
		case 1:
			p.readAddress(m.message(0))
		case 2:
			m.string(&ignored)
		case 3:
			readPair(m.message(pairOnce))
		case 4:
			m.string(&p.Principal)
		case 5:
			m.string(&p.Certificate)
		}
	}
}

// readAddress reads one of three. One more would be another address.
func (p *Peer) readAddress(m message) {
	for known := 0; m.next(); {
		switch m.number {
		case 1:
			p.readSocketAddress(m.message(socketAddressOnce))
		case 2:
			m.ignore((*corev3.Pipe)(nil))
		case 3:
			m.ignore((*corev3.EnvoyInternalAddress)(nil))
		default:
			continue
		}
		if known++; known > 1 {
			m.fail(errTwice)
		}
	}
}

func (p *Peer) readSocketAddress(m message) {
	var ignored string
	var number int64
	for m.next() {
		switch m.number {
		case 1, 6:
			m.int(&number)
		case 2:
			m.string(&p.Address)
		case 3:
			m.int(&number)
			p.Port = uint32(number)
		case 4, 5, 7:
			m.string(&ignored)
		}
	}
}

func (r *Request) readRequest(m message) {
	for m.next() {
		switch m.number {
		case 1:
			readTime(m.message(timeOnce))
		case 2:
			r.HTTP = true
			r.readHTTP(m.message(httpOnce))
		}
	}
}

func readTime(m message) {
	var ignored int64
	for m.next() {
		if m.number <= 2 {
			m.int(&ignored)
		}
	}
}

func (r *Request) readHTTP(m message) {
	for m.next() {
		switch m.number {
		case 1:
			m.string(&r.ID)
		case 2:
			m.string(&r.Method)
		case 3:
			r.Merged = append(r.Merged, readPair(m.message(pairOnce)))
		case 4:
			m.string(&r.Path)
		case 5:
			m.string(&r.Host)
		case 6:
			m.string(&r.Scheme)
		case 7:
			m.string(&r.Query)
		case 8:
			m.string(&r.Fragment)
		case 9:
			m.int(&r.Size)
		case 10:
			m.string(&r.Protocol)
		case 11:
			m.string(&r.Body)
		case 12:
			m.bytes(&r.RawBody)
		case 13:
			r.readHeaderMap(m.message(0))
		}
	}
}

func (r *Request) readHeaderMap(m message) {
	for m.next() {
		if m.number == 1 {
			r.Headers = append(r.Headers, readHeader(m.message(headerOnce)))
		}
	}
}

func readHeader(m message) (h Pair) {
	var raw string
	for m.next() {
		switch m.number {
		case 1:
			m.string(&h.Name)
		case 2:
			m.string(&h.Value)
		case 3:
			m.bytes(&raw)
		}
	}
	switch {
	case raw == "":
	case h.Value != "":
		m.fail(errTwice)
	default:
		h.Value = raw
	}
	return h
}

func (r *Request) readExtension(m message) {
	p := readPair(m)
	if slices.ContainsFunc(r.Extensions, func(e Pair) bool { return e.Name == p.Name }) {
		m.fail(errTwice)
	}
	r.Extensions = append(r.Extensions, p)
}

// readPair reads an entry of a map.
func readPair(m message) (p Pair) {
	for m.next() {
		switch m.number {
		case 1:
			m.string(&p.Name)
		case 2:
			m.string(&p.Value)
		}
	}
	return p
}
