package opaenvoy

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/chancery-mesh/chancery/mesh"
)

var (
	// ErrAmbiguousPath says that servers do not agree on what a path means.
	ErrAmbiguousPath = errors.New("ambiguous path")
	// ErrTooLarge says that a body is larger than policies read.
	ErrTooLarge = errors.New("body too large")
	// ErrBadRequest says that a request cannot be read, for its body perhaps.
	ErrBadRequest = errors.New("bad request")
)

func badRequest(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrBadRequest, fmt.Errorf(format, args...))
}

// InputOptions say how a check request is read.
type InputOptions struct {
	// AmbiguousPaths lets policies judge paths that have several readings, as
	// the plugin does. Otherwise they are [ErrAmbiguousPath].
	AmbiguousPaths bool
	// SkipBody leaves out parsed_body and truncated_body.
	SkipBody bool
	// Protos says what the bodies of gRPC calls are; nil reads none.
	Protos *protoregistry.Files
}

// maxBody bounds bodies: as values of Rego they take many times their size. The
// plugin takes 4 MiB, unless it is told otherwise.
const maxBody = 16 << 20

// Input returns the document that the plugin makes of a check request. The
// error is [ErrAmbiguousPath], [ErrTooLarge] or [ErrBadRequest].
func Input(req *authv3.CheckRequest, o InputOptions) (ast.Object, error) {
	if http := req.GetAttributes().GetRequest().GetHttp(); len(http.GetBody()) > maxBody || len(http.GetRawBody()) > maxBody {
		return nil, ErrTooLarge
	}
	return input(req, o)
}

// Route is what a route knows of a request beside the message.
type Route struct {
	// Identity is who the request is of.
	Identity map[string]any
	// JSON is the body, as far as policies read it. Nil has none.
	JSON []byte
}

// RouteInput is [Input] for a route: identity has who the request is of, and
// parsed_body nothing but JSON.
func RouteInput(req *authv3.CheckRequest, r Route) (ast.Object, error) {
	identity, err := ast.InterfaceToValue(r.Identity)
	if err != nil {
		return nil, err
	}
	members := [][2]*ast.Term{item("identity", identity)}
	if len(r.JSON) > 0 {
		body, err := readJSON(r.JSON)
		if err != nil {
			return nil, err
		}
		members = append(members, item("parsed_body", body))
	}
	return input(req, InputOptions{SkipBody: true}, members...)
}

func input(req *authv3.CheckRequest, o InputOptions, more ...[2]*ast.Term) (ast.Object, error) {
	r, err := readRequest(req, o)
	if err != nil {
		return nil, err
	}
	members := append(messageMembers(req.ProtoReflect(), r.headers),
		item("version", version),
		item("parsed_path", stringsValue(r.segments)),
		item("parsed_query", queryValue(r.query)))
	if !o.SkipBody {
		parsed, truncated, err := parseBody(r, o.Protos)
		if err != nil {
			return nil, err
		}
		members = append(members, item("parsed_body", parsed), item("truncated_body", ast.Boolean(truncated)))
	}
	if principal := req.GetAttributes().GetSource().GetPrincipal(); principal != "" {
		members = append(members, item("source_principal", ast.String(principal)))
	}
	return ast.NewObject(append(members, more...)...), nil
}

// version is how policies tell the form of the input, in the plugin's words.
var version = ast.NewObject(item("ext_authz", ast.String("v3")), item("encoding", ast.String("protojson")))

// request is what of a check request is read further.
type request struct {
	headers  map[string]string
	segments []string
	query    url.Values
	body     []byte
	// raw is the body as bytes alone (pack_as_bytes).
	raw []byte
}

func readRequest(req *authv3.CheckRequest, o InputOptions) (*request, error) {
	http := req.GetAttributes().GetRequest().GetHttp()
	path, query, _ := strings.Cut(http.GetPath(), "?")
	segments, err := splitPath(path, o.AmbiguousPaths)
	if err != nil {
		return nil, err
	}
	if strings.Contains(query, "#") {
		return nil, badRequest("query: with a fragment, which some take for a part of it")
	}
	r := &request{segments: segments, body: []byte(http.GetBody()), raw: http.GetRawBody()}
	if len(r.body) == 0 {
		r.body = r.raw
	}
	if r.query, err = url.ParseQuery(query); err != nil {
		return nil, badRequest("query: %w", err)
	}
	for name, values := range r.query {
		for _, s := range append(values, name) {
			if !utf8.ValidString(s) {
				return nil, badRequest("query: not text in UTF-8")
			}
		}
	}
	if r.headers = http.GetHeaders(); len(r.headers) == 0 {
		r.headers, err = merge(http.GetHeaderMap().GetHeaders())
	}
	return r, err
}

// splitPath returns the segments of a path, decoded. The path is never parsed as
// a URL: to url.Parse, what follows "//" is a host (CVE-2026-26205). Empty paths
// and "*" are those of CONNECT and OPTIONS.
func splitPath(path string, ambiguous bool) ([]string, error) {
	if path != "" && path != "*" && !mesh.IsCanonicalPath(path) && !ambiguous {
		return nil, ErrAmbiguousPath
	}
	decoded, err := url.PathUnescape(path)
	if err != nil || !utf8.ValidString(decoded) {
		return nil, badRequest("path: not text in UTF-8")
	}
	return strings.Split(strings.TrimLeft(decoded, "/"), "/"), nil
}

// merge returns headers as Envoy gives them when it is not told to send them raw
// (encode_raw_headers): the lines of one name in one, with commas.
func merge(lines []*corev3.HeaderValue) (map[string]string, error) {
	headers := make(map[string]string, len(lines))
	for _, line := range lines {
		name, value := strings.ToLower(line.GetKey()), line.GetValue()
		if raw := line.GetRawValue(); len(raw) > 0 {
			value = string(raw)
		}
		if !utf8.ValidString(value) {
			return nil, badRequest("header %.60q: not text in UTF-8", name)
		}
		if first, ok := headers[name]; ok {
			value = first + "," + value
		}
		headers[name] = value
	}
	return headers, nil
}
