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

// message is encoded, and looked at twice: as the bytes that protowire reads,
// which are somebody else's, and as the text that strings are cut from.
type message struct {
	data []byte
	text string
}

// field is one of a message: a number, or bytes that may be a message.
type field struct {
	number protowire.Number
	kind   protowire.Type
	varint uint64
	value  message
}

// fields is a set of field numbers below 32.
type fields uint32

func fieldsOf(numbers ...protowire.Number) (set fields) {
	for _, n := range numbers {
		set |= 1 << n
	}
	return set
}

func (s fields) has(n protowire.Number) bool { return n < 32 && s&(1<<n) != 0 }

// read reads the fields in their order. Of those in once it is an error if one
// stands a second time: some would take the first then, some the last, and
// some join the two.
func (m message) read(once fields, each func(field) error) error {
	var read fields
	for len(m.data) > 0 {
		f, err := m.next()
		if err != nil {
			return err
		}
		if once.has(f.number) {
			if read.has(f.number) {
				return errTwice
			}
			read |= 1 << f.number
		}
		if err := each(f); err != nil {
			return err
		}
	}
	return nil
}

// next cuts off the first field.
func (m *message) next() (f field, err error) {
	var n int
	if f.number, f.kind, n = protowire.ConsumeTag(m.data); n < 0 || f.number > protowire.MaxValidNumber {
		return f, errMalformed
	}
	m.skip(n)
	switch f.kind {
	case protowire.BytesType:
		if f.value.data, n = protowire.ConsumeBytes(m.data); n >= 0 {
			f.value.text = m.text[n-len(f.value.data) : n]
		}
	case protowire.VarintType:
		f.varint, n = protowire.ConsumeVarint(m.data)
	default:
		n = protowire.ConsumeFieldValue(f.number, f.kind, m.data)
	}
	if n < 0 {
		return f, errMalformed
	}
	m.skip(n)
	return f, nil
}

func (m *message) skip(n int) { m.data, m.text = m.data[n:], m.text[n:] }

// message returns the value of a field that is one.
func (f field) message() (message, error) {
	if f.kind != protowire.BytesType {
		return message{}, errMalformed
	}
	return f.value, nil
}

// string reads text, which must be UTF-8.
func (f field) string(to *string) error {
	if f.kind != protowire.BytesType || !utf8.ValidString(f.value.text) {
		return errMalformed
	}
	*to = f.value.text
	return nil
}

func (f field) bytes(to *string) error {
	if f.kind != protowire.BytesType {
		return errMalformed
	}
	*to = f.value.text
	return nil
}

func (f field) int(to *int64) error {
	if f.kind != protowire.VarintType {
		return errMalformed
	}
	*to = int64(f.varint)
	return nil
}

// ignore reads what nobody asks for. It must be what it should be nevertheless.
func (f field) ignore(m proto.Message) error {
	if f.kind != protowire.BytesType {
		return errMalformed
	}
	if len(f.value.data) > 0 && proto.Unmarshal(f.value.data, m) != nil {
		return errMalformed
	}
	return nil
}
