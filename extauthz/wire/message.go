package wire

import (
	"errors"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

var (
	errMalformed = errors.New("check request is malformed")
	errTwice     = errors.New("check request has a field twice")
)

// source is what is read: as the bytes that protowire reads, which are somebody
// else's, and as the text that strings are cut from.
type source struct {
	data []byte
	text string
	// fault is the first, which ends reading.
	fault error
}

func (s *source) fail(err error) {
	if s.fault == nil {
		s.fault = err
	}
}

// message is a part of a source that is read field by field.
type message struct {
	*source
	at, end int
	// once are the fields of which it is a fault if one stands a second time:
	// some would take the first then, some the last, and some join the two. Read
	// are those of them that were read.
	once, read fields
	field
}

// field is what was read last: a number, or what stands between two places.
type field struct {
	number      protowire.Number
	kind        protowire.Type
	value       uint64
	begin, stop int
}

// fields is a set of field numbers below 32.
type fields uint32

func fieldsOf(numbers ...protowire.Number) (set fields) {
	for _, n := range numbers {
		set |= 1 << n
	}
	return set
}

// next reads a field, and reports whether there is one.
func (m *message) next() bool {
	if m.at == m.end || m.fault != nil {
		return false
	}
	tag := m.varint()
	number := tag >> 3
	if number < uint64(protowire.MinValidNumber) || number > uint64(protowire.MaxValidNumber) {
		m.fail(errMalformed)
		return false
	}
	m.number, m.kind = protowire.Number(number), protowire.Type(tag&7)
	if bit := fields(1) << (number & 31); number < 32 && m.once&bit != 0 {
		if m.read&bit != 0 {
			m.fail(errTwice)
		}
		m.read |= bit
	}
	m.readValue()
	return m.fault == nil
}

func (m *message) readValue() {
	switch m.kind {
	case protowire.BytesType:
		length := m.varint()
		if length > uint64(m.end-m.at) {
			m.fail(errMalformed)
			return
		}
		m.begin, m.stop = m.at, m.at+int(length)
		m.at = m.stop
	case protowire.VarintType:
		m.value = m.varint()
	default:
		m.skip(protowire.ConsumeFieldValue(m.number, m.kind, m.data[m.at:m.end]))
	}
}

// varint reads a number, which mostly is one byte.
func (m *message) varint() uint64 {
	if m.at < m.end && m.data[m.at] < 0x80 {
		m.at++
		return uint64(m.data[m.at-1])
	}
	v, n := protowire.ConsumeVarint(m.data[m.at:m.end])
	m.skip(n)
	return v
}

// skip goes on by what protowire says to have read, less than 0 for a fault.
func (m *message) skip(n int) {
	if n < 0 {
		m.fail(errMalformed)
		return
	}
	m.at += n
}

// message returns the field as a message.
func (m *message) message(once fields) message {
	m.demand(protowire.BytesType)
	return message{source: m.source, at: m.begin, end: m.stop, once: once}
}

// string reads text, which must be UTF-8.
func (m *message) string(to *string) {
	if m.bytes(to); !utf8.ValidString(*to) {
		m.fail(errMalformed)
	}
}

func (m *message) bytes(to *string) {
	if m.demand(protowire.BytesType) {
		*to = m.text[m.begin:m.stop]
	}
}

func (m *message) int(to *int64) {
	if m.demand(protowire.VarintType) {
		*to = int64(m.value)
	}
}

// ignore reads what nobody asks for. It must be what it should be nevertheless:
// a message of kind's kind.
func (m *message) ignore(kind proto.Message) {
	if !m.demand(protowire.BytesType) || m.begin == m.stop {
		return
	}
	if proto.Unmarshal(m.data[m.begin:m.stop], kind.ProtoReflect().New().Interface()) != nil {
		m.fail(errMalformed)
	}
}

func (m *message) demand(kind protowire.Type) bool {
	if m.kind != kind {
		m.fail(errMalformed)
	}
	return m.kind == kind
}
