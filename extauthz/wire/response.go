package wire

import (
	"encoding/binary"
	"net/http"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
)

// Response is a CheckResponse. The zero value refuses with 503.
type Response struct {
	// Allowed lets the request through.
	Allowed bool
	// Status is what the client gets where it is refused; 0 is 503.
	Status int
	// Set are headers that replace those of that name: of the request, if it is
	// let through, and else of the answer to the client.
	Set []Pair
	// Remove names headers of the request, which is let through without them.
	Remove []string
	// Body is what the client gets where it is refused.
	Body string
	// Metadata is dynamic metadata.
	Metadata []Pair
	// Message replaces all of the above.
	Message *authv3.CheckResponse
}

// Append appends the encoded CheckResponse; not that of Message.
func (r *Response) Append(b []byte) []byte {
	if r.Allowed {
		b = nest(b, 1, func(b []byte) []byte { return b })
		b = nest(b, 3, r.appendOK)
	} else {
		b = nest(b, 1, func(b []byte) []byte { return appendNumber(b, 1, int(codes.PermissionDenied)) })
		b = nest(b, 2, r.appendDenied)
	}
	if len(r.Metadata) == 0 {
		return b
	}
	return nest(b, 4, func(b []byte) []byte {
		for _, p := range r.Metadata {
			b = nest(b, 1, p.appendEntry)
		}
		return b
	})
}

// The numbers in the following are those of Envoy's external_auth.proto and
// base.proto, and of protobuf's struct.proto.

func (r *Response) appendOK(b []byte) []byte {
	for _, h := range r.Set {
		b = nest(b, 2, h.appendOption)
	}
	for _, name := range r.Remove {
		b = appendString(b, 5, name)
	}
	return b
}

func (r *Response) appendDenied(b []byte) []byte {
	status := r.Status
	if status == 0 {
		status = http.StatusServiceUnavailable
	}
	b = nest(b, 1, func(b []byte) []byte { return appendNumber(b, 1, status) })
	for _, h := range r.Set {
		b = nest(b, 2, h.appendOption)
	}
	return appendString(b, 3, r.Body)
}

// overwrite is OVERWRITE_IF_EXISTS_OR_ADD.
const overwrite = 2

func (p Pair) appendOption(b []byte) []byte {
	b = nest(b, 1, p.appendPair)
	return appendNumber(b, 3, overwrite)
}

func (p Pair) appendPair(b []byte) []byte {
	return appendString(appendString(b, 1, p.Name), 2, p.Value)
}

// appendEntry appends an entry of a Struct whose value is text.
func (p Pair) appendEntry(b []byte) []byte {
	b = appendString(b, 1, p.Name)
	return nest(b, 2, func(b []byte) []byte {
		// A Value is one of several: one that is empty must be there, too.
		return protowire.AppendString(protowire.AppendTag(b, 3, protowire.BytesType), p.Value)
	})
}

func appendString(b []byte, number protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), s)
}

func appendNumber(b []byte, number protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), uint64(n))
}

// nest appends a message, and moves it to make room for its length once that is
// known.
func nest(b []byte, number protowire.Number, message func([]byte) []byte) []byte {
	b = protowire.AppendTag(b, number, protowire.BytesType)
	begin := len(b)
	b = message(b)
	length := len(b) - begin
	room := protowire.SizeVarint(uint64(length))
	b = append(b, make([]byte, room)...)
	copy(b[begin+room:], b[begin:begin+length])
	binary.PutUvarint(b[begin:], uint64(length))
	return b
}
