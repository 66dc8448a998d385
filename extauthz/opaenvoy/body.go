package opaenvoy

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/chancery-mesh/chancery/internal/jose"
)

const (
	// maxDepth bounds how deep a body nests.
	maxDepth = 128
	// maxNumber bounds a number in a body, in characters.
	maxNumber = 512
	// maxParts bounds a multipart body.
	maxParts = 1000
)

// parseBody returns the request's body as a policy reads it: null if it has none
// or is of a type that is not read, and null and true if it is not whole.
func parseBody(r *request, protos *protoregistry.Files) (v ast.Value, truncated bool, err error) {
	contentType := strings.ToLower(r.headers["content-type"])
	of := func(mediaType string) bool { return strings.Contains(contentType, mediaType) }
	var parse func(contentType string, body []byte) (ast.Value, error)
	switch {
	case of("application/json"):
		parse = parseJSON
	case of("application/grpc"):
		return parseGRPC(r, protos)
	case of("application/x-www-form-urlencoded"):
		parse = parseForm
	case of("multipart/form-data"):
		parse = parseMultipart
	default:
		return ast.Null{}, false, nil
	}
	if len(r.body) == 0 {
		return ast.Null{}, false, nil
	}
	if truncated, err := isTruncated(r); truncated || err != nil {
		return ast.Null{}, truncated, err
	}
	if encoding := r.headers["content-encoding"]; encoding != "" && encoding != "identity" {
		return nil, false, badRequest("body: encoded with %.40q", encoding)
	}
	v, err = parse(r.headers["content-type"], r.body)
	return v, false, err
}

// isTruncated reports whether Envoy sent a part of the body, by the length that
// the client said, or, where it said none, by what Envoy says.
func isTruncated(r *request) (bool, error) {
	if r.headers["x-envoy-auth-partial-body"] == "true" {
		return true, nil
	}
	text, ok := r.headers["content-length"]
	if !ok {
		return false, nil
	}
	length, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return false, badRequest("content-length: is no number")
	}
	return length > int64(len(r.body)), nil
}

func parseJSON(contentType string, body []byte) (ast.Value, error) {
	if !isUTF8(contentType) {
		return nil, badRequest("body: JSON, but not in UTF-8")
	}
	return readJSON(body)
}

func readJSON(body []byte) (ast.Value, error) {
	v, err := jose.ParseBody(body, maxDepth)
	if err != nil {
		return nil, badRequest("body: %w", err)
	}
	return jsonValue(v)
}

// isUTF8 reports whether a content type does not say that text is something
// else, which the service might believe.
func isUTF8(contentType string) bool {
	_, parameters, err := mime.ParseMediaType(contentType)
	charset, ok := parameters["charset"]
	return err == nil && (!ok || strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "us-ascii"))
}

func jsonValue(v any) (ast.Value, error) {
	switch v := v.(type) {
	case jose.Object:
		o := ast.NewObjectWithCapacity(len(v))
		for name, member := range v {
			value, err := jsonValue(member)
			if err != nil {
				return nil, err
			}
			o.Insert(ast.StringTerm(name), ast.NewTerm(value))
		}
		return o, nil
	case []any:
		terms := make([]*ast.Term, len(v))
		for i, element := range v {
			value, err := jsonValue(element)
			if err != nil {
				return nil, err
			}
			terms[i] = ast.NewTerm(value)
		}
		return ast.NewArray(terms...), nil
	case string:
		return ast.String(v), nil
	case bool:
		return ast.Boolean(v), nil
	case json.Number:
		return ast.Number(v), checkNumber(v)
	}
	return ast.Null{}, nil
}

// checkNumber refuses numbers that no double holds, as OPA's own functions do:
// it calculates with all their digits, for minutes, and cannot be interrupted.
func checkNumber(n json.Number) error {
	_, exponent, _ := strings.Cut(strings.ToLower(string(n)), "e")
	if _, err := n.Float64(); err != nil || len(n) > maxNumber || len(strings.TrimLeft(exponent, "+-0")) > 3 {
		return badRequest("body: number out of range")
	}
	return nil
}

func parseForm(_ string, body []byte) (ast.Value, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, badRequest("body: %w", err)
	}
	for name, values := range form {
		for _, s := range append(values, name) {
			if !utf8.ValidString(s) {
				return nil, badRequest("body: not text in UTF-8")
			}
		}
	}
	return queryValue(form), nil
}

// parseMultipart returns a list for each name; parts of JSON are read, too.
func parseMultipart(contentType string, body []byte) (ast.Value, error) {
	_, parameters, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, badRequest("content-type: %w", err)
	}
	boundary, ok := parameters["boundary"]
	if !ok {
		return ast.Null{}, nil
	}
	form := map[string][]*ast.Term{}
	reader := multipart.NewReader(bytes.NewReader(body), boundary)
	for parts := 0; ; parts++ {
		part, err := reader.NextPart()
		switch {
		case errors.Is(err, io.EOF):
			return formValue(form), nil
		case err != nil: // which may quote the body
			return nil, badRequest("body: is no multipart form")
		case parts == maxParts:
			return nil, badRequest("body: more than %d parts", maxParts)
		case part.FormName() == "":
			continue
		}
		v, err := partValue(part)
		if err != nil {
			return nil, err
		}
		form[part.FormName()] = append(form[part.FormName()], ast.NewTerm(v))
	}
}

func partValue(part *multipart.Part) (ast.Value, error) {
	content, err := io.ReadAll(part)
	if err != nil {
		return nil, badRequest("body: is no multipart form")
	}
	if contentType := part.Header.Get("Content-Type"); strings.Contains(strings.ToLower(contentType), "application/json") {
		return parseJSON(contentType, content)
	}
	return ast.String(content), nil
}

func formValue(form map[string][]*ast.Term) ast.Value {
	o := ast.NewObjectWithCapacity(len(form))
	for name, values := range form {
		o.Insert(ast.StringTerm(name), ast.ArrayTerm(values...))
	}
	return o
}

// parseGRPC returns the first message of a unary call, in its JSON form.
func parseGRPC(r *request, protos *protoregistry.Files) (v ast.Value, truncated bool, err error) {
	const prefix = 5 // a flag and the length
	if protos == nil || len(r.raw) == 0 {
		return ast.Null{}, false, nil
	}
	if len(r.segments) != 2 {
		return nil, false, badRequest("path: is not that of a gRPC call")
	}
	if len(r.raw) < prefix {
		return nil, false, badRequest("body: is not that of a gRPC call")
	}
	if compressed := r.raw[0] != 0; compressed {
		return ast.Null{}, false, nil
	}
	message := r.raw[prefix:]
	length := binary.BigEndian.Uint32(r.raw[1:prefix])
	if uint64(length) > uint64(len(message)) {
		return ast.Null{}, true, nil
	}
	method := findMethod(protos, r.segments[0], r.segments[1])
	if method == nil || method.IsStreamingClient() {
		return ast.Null{}, false, nil
	}
	v, err = protoValue(dynamicpb.NewMessage(method.Input()), message[:length])
	return v, false, err
}

func findMethod(protos *protoregistry.Files, service, method string) protoreflect.MethodDescriptor {
	d, err := protos.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return nil
	}
	s, ok := d.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil
	}
	return s.Methods().ByName(protoreflect.Name(method))
}

func protoValue(m proto.Message, message []byte) (ast.Value, error) {
	if err := proto.Unmarshal(message, m); err != nil {
		return nil, badRequest("body: %w", err)
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		return nil, badRequest("body: has no form in JSON")
	}
	v, err := jose.ParseValue(text, maxDepth) // messages have no members that could be confused
	if err != nil {
		return nil, badRequest("body: %w", err)
	}
	return jsonValue(v)
}
