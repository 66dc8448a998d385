package opaenvoy_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/chancery-mesh/chancery/extauthz/opaenvoy"
)

// checkRequest reads a check request from its JSON form.
func checkRequest(t testing.TB, text string) *authv3.CheckRequest {
	t.Helper()
	var req authv3.CheckRequest
	if err := protojson.Unmarshal([]byte(text), &req); err != nil {
		t.Fatal(err)
	}
	return &req
}

// request is one whose method, headers and so on are those of http.
func request(http *authv3.AttributeContext_HttpRequest) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: http}}}
}

// document returns the input as JSON sees it.
func document(t testing.TB, req *authv3.CheckRequest, o opaenvoy.InputOptions) (map[string]any, error) {
	t.Helper()
	input, err := opaenvoy.Input(req, o)
	if err != nil {
		return nil, err
	}
	v, err := ast.JSON(input)
	if err != nil {
		t.Fatal(err)
	}
	return v.(map[string]any), nil
}

func number(s string) json.Number { return json.Number(s) }

func TestInput(t *testing.T) {
	t.Parallel()
	req := checkRequest(t, `{"attributes": {
		"source": {"address": {"socketAddress": {"address": "172.17.0.10", "portValue": 36472}}, "principal": "spiffe://shop.example/service/web", "labels": {"foo": "bar"}},
		"destination": {"address": {"socketAddress": {"address": "172.17.0.17", "portValue": 9080}}},
		"metadataContext": {"filterMetadata": {"dummy": {"hello": "world", "count": 1, "list": [true, null, {"a": 0.5}]}}},
		"contextExtensions": {"hello": "world"},
		"request": {"time": "2026-11-22T10:00:00.5Z", "http": {
			"id": "13359530607844510314", "method": "GET", "path": "/api/v1/products?a=1&a=2&x=y", "host": "192.168.99.100:31380", "protocol": "HTTP/1.1",
			"size": "42", "headers": {":authority": "192.168.99.100:31380", "accept": "*/*"}, "rawBody": "AAECAw=="
		}}}}`)
	got, err := document(t, req, opaenvoy.InputOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"attributes": map[string]any{
			"source": map[string]any{
				"address":   map[string]any{"socketAddress": map[string]any{"address": "172.17.0.10", "portValue": number("36472")}},
				"principal": "spiffe://shop.example/service/web",
				"labels":    map[string]any{"foo": "bar"},
			},
			"destination": map[string]any{
				"address": map[string]any{"socketAddress": map[string]any{"address": "172.17.0.17", "portValue": number("9080")}},
			},
			"metadataContext": map[string]any{"filterMetadata": map[string]any{"dummy": map[string]any{
				"hello": "world", "count": number("1"), "list": []any{true, nil, map[string]any{"a": number("0.5")}},
			}}},
			"contextExtensions": map[string]any{"hello": "world"},
			"request": map[string]any{
				"time": map[string]any{"seconds": number("1795341600"), "nanos": number("500000000")},
				"http": map[string]any{
					"id": "13359530607844510314", "method": "GET", "path": "/api/v1/products?a=1&a=2&x=y", "host": "192.168.99.100:31380",
					"protocol": "HTTP/1.1", "size": number("42"), "rawBody": "AAECAw==",
					"headers": map[string]any{":authority": "192.168.99.100:31380", "accept": "*/*"},
				},
			},
		},
		"parsed_path": []any{"api", "v1", "products"}, "parsed_query": map[string]any{"a": []any{"1", "2"}, "x": []any{"y"}},
		"parsed_body": nil, "truncated_body": false, "source_principal": "spiffe://shop.example/service/web",
		"version": map[string]any{"ext_authz": "v3", "encoding": "protojson"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// What the plugin leaves out when it is told so.
func TestSkipBody(t *testing.T) {
	t.Parallel()
	http := &authv3.AttributeContext_HttpRequest{
		Headers: map[string]string{"content-type": "application/json"}, Body: `["foo" : 42}`,
	}
	if _, err := document(t, request(http), opaenvoy.InputOptions{}); !errors.Is(err, opaenvoy.ErrBadRequest) {
		t.Errorf("malformed body: %v", err)
	}
	got, err := document(t, request(http), opaenvoy.InputOptions{SkipBody: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"parsed_body", "truncated_body"} {
		if _, there := got[name]; there {
			t.Errorf("%s is there", name)
		}
	}
}

// The lines of raw headers (encode_raw_headers) are merged.
func TestRawHeaders(t *testing.T) {
	t.Parallel()
	line := func(name, value string) *corev3.HeaderValue {
		return &corev3.HeaderValue{Key: name, RawValue: []byte(value)}
	}
	http := &authv3.AttributeContext_HttpRequest{
		Path:      "/",
		HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{line("x-a", "1"), line("x-b", "2"), line("x-a", "3")}},
	}
	got, err := document(t, request(http), opaenvoy.InputOptions{})
	if err != nil {
		t.Fatal(err)
	}
	headers := got["attributes"].(map[string]any)["request"].(map[string]any)["http"].(map[string]any)["headers"]
	if diff := cmp.Diff(map[string]any{"x-a": "1,3", "x-b": "2"}, headers); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	http.HeaderMap.Headers = append(http.HeaderMap.Headers, line("x-c", "\xff"))
	if _, err := document(t, request(http), opaenvoy.InputOptions{}); !errors.Is(err, opaenvoy.ErrBadRequest) {
		t.Errorf("a header that is no text: %v", err)
	}
}

// The plugin's cases, and that of CVE-2026-26205.
func TestParsedPathAndQuery(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]struct {
		path  []any
		query map[string]any
	}{
		"/my/test/path":                        {[]any{"my", "test", "path"}, map[string]any{}},
		"/my/test/path?a=1":                    {[]any{"my", "test", "path"}, map[string]any{"a": []any{"1"}}},
		"/my/test/path?a=1&a=2":                {[]any{"my", "test", "path"}, map[string]any{"a": []any{"1", "2"}}},
		"/my/test/path?a=1&b=2":                {[]any{"my", "test", "path"}, map[string]any{"a": []any{"1"}, "b": []any{"2"}}},
		"/my/test/path?a=1&a=new%0aline":       {[]any{"my", "test", "path"}, map[string]any{"a": []any{"1", "new\nline"}}},
		"%2Fmy%2Ftest%2Fpath?a=1&a=new%0aline": {[]any{"my", "test", "path"}, map[string]any{"a": []any{"1", "new\nline"}}},
		"//admin/secret":                       {[]any{"admin", "secret"}, map[string]any{}},
		"///admin":                             {[]any{"admin"}, map[string]any{}},
		"//evil.test/admin?x=1":                {[]any{"evil.test", "admin"}, map[string]any{"x": []any{"1"}}},
		"/public//admin":                       {[]any{"public", "", "admin"}, map[string]any{}},
		"http://api.test/admin":                {[]any{"http:", "", "api.test", "admin"}, map[string]any{}},
		"/admin#x":                             {[]any{"admin#x"}, map[string]any{}},
		"/a%20b/%C3%A4":                        {[]any{"a b", "ä"}, map[string]any{}},
		"/":                                    {[]any{""}, map[string]any{}},
		"":                                     {[]any{""}, map[string]any{}},
		"*":                                    {[]any{"*"}, map[string]any{}},
		"/a?b=/../admin":                       {[]any{"a"}, map[string]any{"b": []any{"/../admin"}}},
		"/a?":                                  {[]any{"a"}, map[string]any{}},
		"/a??b":                                {[]any{"a"}, map[string]any{"?b": []any{""}}},
	} {
		http := &authv3.AttributeContext_HttpRequest{Path: target}
		got, err := document(t, request(http), opaenvoy.InputOptions{AmbiguousPaths: true})
		if err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		if diff := cmp.Diff([]any{want.path, want.query}, []any{got["parsed_path"], got["parsed_query"]}); diff != "" {
			t.Errorf("%s (-want +got)\n%s", target, diff)
		}
	}
}

// Without being told so, no policy judges a path with two readings.
func TestAmbiguousPaths(t *testing.T) {
	t.Parallel()
	for _, path := range []string{
		"//admin", "/public//admin", "//evil.test/admin", "/public/../admin", "/public/%2e%2e/admin", "/public%2f..%2fadmin", "/%2fadmin", `/public\..\admin`,
		"/admin;x=y", "/public/..;/admin", "/admin#x", "/admin%23x", "/%61dmin", "/admin%00", "/%252e%252e/admin", "/%c0%ae%c0%ae/admin", "admin", "?x",
		"http://api.test/admin", "/.", "/..", "/a/./b", "/admin%",
	} {
		for _, target := range []string{path, path + "?a=b"} {
			_, err := opaenvoy.Input(request(&authv3.AttributeContext_HttpRequest{Path: target}), opaenvoy.InputOptions{})
			empty := strings.HasPrefix(target, "?")
			if empty != (err == nil) || err != nil && !errors.Is(err, opaenvoy.ErrAmbiguousPath) {
				t.Errorf("%s: %v", target, err)
			}
		}
	}
	for _, target := range []string{"/a?b;c", "/ok?x=1#y", "/ok?#", "/a?b=%zz", "/a?b=%ff", "/a?%ff=b", "/a%zz", "/a%ff"} {
		_, err := opaenvoy.Input(request(&authv3.AttributeContext_HttpRequest{Path: target}), opaenvoy.InputOptions{AmbiguousPaths: true})
		if !errors.Is(err, opaenvoy.ErrBadRequest) {
			t.Errorf("%s: %v", target, err)
		}
	}
}

func TestParsedBody(t *testing.T) {
	t.Parallel()
	const (
		jsonType  = "application/json"
		form      = "application/x-www-form-urlencoded"
		multipart = "multipart/form-data; boundary=foo"
	)
	type headers = map[string]string
	long := strings.Repeat("9", 513)
	for name, c := range map[string]struct {
		headers   headers
		body      string
		raw       string
		want      any
		truncated bool
		bad       bool
	}{
		// The plugin's own.
		"no content type":              {headers: headers{"content-length": "0"}},
		"text":                         {headers: headers{"content-type": "text/html"}, body: `{"a": 1}`},
		"JSON string":                  {headers: headers{"content-type": jsonType}, body: `"foo"`, want: "foo"},
		"JSON boolean":                 {headers: headers{"content-type": jsonType}, body: `true`, want: true},
		"JSON number":                  {headers: headers{"content-type": jsonType}, body: `42`, want: number("42")},
		"JSON null":                    {headers: headers{"content-type": jsonType}, body: `null`},
		"JSON object":                  {headers: headers{"content-type": jsonType}, body: `{"firstname": "foo", "lastname": "bar"}`, want: map[string]any{"firstname": "foo", "lastname": "bar"}},
		"JSON array":                   {headers: headers{"content-type": jsonType}, body: `["hello", "opa"]`, want: []any{"hello", "opa"}},
		"JSON special characters":      {headers: headers{"content-type": jsonType}, body: `["\"", "\\", "\/", "/", "\b", "\f", "\n", "\r", "\t", "\u0041"]`, want: []any{`"`, `\`, "/", "/", "\b", "\f", "\n", "\r", "\t", "A"}},
		"JSON, empty":                  {headers: headers{"content-type": jsonType}},
		"JSON as bytes":                {headers: headers{"content-type": jsonType}, raw: `{"firstname": "foo"}`, want: map[string]any{"firstname": "foo"}},
		"JSON, truncated":              {headers: headers{"content-type": jsonType, "content-length": "1000"}, body: `true`, truncated: true},
		"JSON, invalid":                {headers: headers{"content-type": jsonType}, body: `["foo" : 42}`, bad: true},
		"form":                         {headers: headers{"content-type": form}, body: `firstname=foo&lastname=bar`, want: map[string]any{"firstname": []any{"foo"}, "lastname": []any{"bar"}}},
		"form as bytes":                {headers: headers{"content-type": form}, raw: `firstname=foo&lastname=bar`, want: map[string]any{"firstname": []any{"foo"}, "lastname": []any{"bar"}}},
		"form, several values":         {headers: headers{"content-type": form}, body: `firstname=foo&lastname=bar&lastname=foobar`, want: map[string]any{"firstname": []any{"foo"}, "lastname": []any{"bar", "foobar"}}},
		"form, truncated":              {headers: headers{"content-type": form, "content-length": "1000"}, body: `firstname=foo&lastname=bar`, truncated: true},
		"form, empty":                  {headers: headers{"content-type": form}},
		"multipart":                    {headers: headers{"content-type": multipart}, body: "--foo\nContent-Disposition: form-data; name=\"foo\"\nContent-Type: text/plain\n\nbar\n--foo--\n", want: map[string]any{"foo": []any{"bar"}}},
		"multipart with JSON":          {headers: headers{"content-type": multipart}, body: "--foo\nContent-Disposition: form-data; name=\"foo\"\nContent-Type: text/plain\n\nbar\n--foo\nContent-Disposition: form-data; name=\"bar\"\nContent-Type: application/json;\n\n{\"name\": \"bar\"}\n--foo--\n", want: map[string]any{"foo": []any{"bar"}, "bar": []any{map[string]any{"name": "bar"}}}},
		"multipart, truncated":         {headers: headers{"content-type": multipart, "content-length": "1000"}, body: "--foo", truncated: true},
		"multipart without a boundary": {headers: headers{"content-type": "multipart/form-data"}, body: "--foo"},
		// What it does not test, or leaves open.
		"whole by its length":              {headers: headers{"content-type": jsonType, "content-length": "4"}, body: `true`, want: true},
		"length that is none":              {headers: headers{"content-type": jsonType, "content-length": "x"}, body: `true`, bad: true},
		"truncated, without a length":      {headers: headers{"content-type": form, "x-envoy-auth-partial-body": "true"}, body: `amount=1`, truncated: true},
		"whole, says Envoy":                {headers: headers{"content-type": form, "x-envoy-auth-partial-body": "false"}, body: `amount=1`, want: map[string]any{"amount": []any{"1"}}},
		"upper case":                       {headers: headers{"content-type": "Application/JSON; charset=UTF-8"}, body: `1`, want: number("1")},
		"duplicate member":                 {headers: headers{"content-type": jsonType}, body: `{"amount": 1, "amount": 1000000}`, bad: true},
		"member in other case":             {headers: headers{"content-type": jsonType}, body: `{"amount": 1, "AMOUNT": 1000000}`, bad: true},
		"multipart, in other case":         {headers: headers{"content-type": multipart}, body: "--foo\nContent-Disposition: form-data; name=\"a\"\nContent-Type: application/json\n\n{\"a\":1,\"A\":2}\n--foo--\n", bad: true},
		"something after it":               {headers: headers{"content-type": jsonType}, body: `{} {}`, bad: true},
		"two values":                       {headers: headers{"content-type": jsonType}, body: `1,"w":2`, bad: true},
		"not UTF-8":                        {headers: headers{"content-type": jsonType}, raw: "\"\xff\"", bad: true},
		"a lone surrogate":                 {headers: headers{"content-type": jsonType}, body: `"\ud800"`, bad: true},
		"another charset":                  {headers: headers{"content-type": jsonType + "; charset=utf-7"}, body: `{"a": "+AGE-"}`, bad: true},
		"two types":                        {headers: headers{"content-type": jsonType + ",text/plain"}, body: `{}`, bad: true},
		"encoded":                          {headers: headers{"content-type": form, "content-encoding": "gzip"}, body: `a`, bad: true},
		"encoded as it is":                 {headers: headers{"content-type": form, "content-encoding": "identity"}, body: `a`, want: map[string]any{"a": []any{""}}},
		"deep":                             {headers: headers{"content-type": jsonType}, body: strings.Repeat("[", 129) + "1" + strings.Repeat("]", 129), bad: true},
		"very deep":                        {headers: headers{"content-type": jsonType}, body: strings.Repeat("[", 100_000), bad: true},
		"number that is none":              {headers: headers{"content-type": jsonType}, body: `{"n": 1e400}`, bad: true},
		"number that takes minutes":        {headers: headers{"content-type": jsonType}, body: `{"n": [1e99999999]}`, bad: true},
		"small number that takes minutes":  {headers: headers{"content-type": jsonType}, body: `1e-99999999`, bad: true},
		"number with many digits":          {headers: headers{"content-type": jsonType}, body: "0." + long, bad: true},
		"number with an exponent":          {headers: headers{"content-type": jsonType}, body: `[1E+08, 1e-300]`, want: []any{number("1E+08"), number("1e-300")}},
		"form that is none":                {headers: headers{"content-type": form}, body: `a=%zz`, bad: true},
		"form with a semicolon":            {headers: headers{"content-type": form}, body: `a;b`, bad: true},
		"form that is no text":             {headers: headers{"content-type": form}, body: `a=%ff`, bad: true},
		"multipart without an end":         {headers: headers{"content-type": multipart}, body: "--foo\nContent-Disposition: form-data; name=\"foo\"\n\nbar", bad: true},
		"multipart, part of bad JSON":      {headers: headers{"content-type": multipart}, body: "--foo\nContent-Disposition: form-data; name=\"a\"\nContent-Type: application/json\n\n{\n--foo--\n", bad: true},
		"multipart, too many parts":        {headers: headers{"content-type": multipart}, body: strings.Repeat("--foo\nContent-Disposition: form-data; name=\"a\"\n\nx\n", 1001) + "--foo--\n", bad: true},
		"multipart, part without a name":   {headers: headers{"content-type": multipart}, body: "--foo\n\nbar\n--foo--\n", want: map[string]any{}},
		"multipart, two parts of one name": {headers: headers{"content-type": multipart}, body: "--foo\nContent-Disposition: form-data; name=\"a\"\n\n1\n--foo\nContent-Disposition: form-data; name=\"a\"\n\n2\n--foo--\n", want: map[string]any{"a": []any{"1", "2"}}},
	} {
		http := &authv3.AttributeContext_HttpRequest{Headers: c.headers, Body: c.body, RawBody: []byte(c.raw)}
		got, err := document(t, request(http), opaenvoy.InputOptions{})
		if c.bad {
			if !errors.Is(err, opaenvoy.ErrBadRequest) {
				t.Errorf("%s: %v, %v", name, got["parsed_body"], err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff([]any{c.want, c.truncated}, []any{got["parsed_body"], got["truncated_body"]}); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}

// books describes a service, as protoc --descriptor_set_out would.
func books(t *testing.T) *protoregistry.Files {
	t.Helper()
	file := &descriptorpb.FileDescriptorProto{
		Name: new("book.proto"), Package: new("com.book"), Syntax: new("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name: new("Author"),
			Field: []*descriptorpb.FieldDescriptorProto{{
				Name: new("author"), Number: new(int32(1)), JsonName: new("author"),
				Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			}},
		}},
		Service: []*descriptorpb.ServiceDescriptorProto{{
			Name: new("BookService"),
			Method: []*descriptorpb.MethodDescriptorProto{
				{Name: new("GetBooksViaAuthor"), InputType: new(".com.book.Author"), OutputType: new(".com.book.Author")},
				{Name: new("Watch"), InputType: new(".com.book.Author"), OutputType: new(".com.book.Author"), ClientStreaming: new(true)},
			},
		}},
	}
	files, err := protodesc.NewFiles(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file}})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestParsedBodyGRPC(t *testing.T) {
	t.Parallel()
	const method = "/com.book.BookService/GetBooksViaAuthor"
	files := books(t)
	for name, c := range map[string]struct {
		path, raw string
		unread    bool // no descriptors
		want      any
		truncated bool
		bad       bool
	}{
		"a call":             {path: method, raw: "AAAAAAYKBEpvaG4=", want: map[string]any{"author": "John"}},
		"without raw body":   {path: method},
		"without descriptor": {path: method, raw: "AAAAAAYKBEpvaG4=", unread: true},
		"no path of a call":  {path: "", raw: "AAAAAAYKBEpvaG4=", bad: true},
		"unknown service":    {path: "/com.book.SecondBookService/GetBooksViaAuthor", raw: "AAAAAAYKBEpvaG4="},
		"a message":          {path: "/com.book.Author/GetBooksViaAuthor", raw: "AAAAAAYKBEpvaG4="},
		"unknown method":     {path: "/com.book.BookService/GetBooksViaSecondAuthor", raw: "AAAAAAYKBEpvaG4="},
		"a stream":           {path: "/com.book.BookService/Watch", raw: "AAAAAAYKBEpvaG4="},
		"empty message":      {path: method, raw: "AAAAAAA=", want: map[string]any{}},
		"compressed":         {path: method, raw: "AQAAADwfiwgAAAAAAAD/4hLkaOi4t49RoOHi+ll//////59RSJCj4dGiE4wCDau/LIYIAQIAAP//aJ9RpSYAAAA="},
		"truncated":          {path: method, raw: "AAAAABEImqaMww==", truncated: true},
		"truncated frame":    {path: method, raw: "AAAA", bad: true},
		"no message of it":   {path: method, raw: "AAAAAAL//w==", bad: true},
	} {
		raw, err := base64.StdEncoding.DecodeString(c.raw)
		if err != nil {
			t.Fatal(name, err)
		}
		options := opaenvoy.InputOptions{Protos: files}
		if c.unread {
			options.Protos = nil
		}
		got, err := document(t, request(&authv3.AttributeContext_HttpRequest{
			Path: c.path, RawBody: raw, Headers: map[string]string{"content-type": "application/grpc"},
		}), options)
		if c.bad || err != nil {
			if !c.bad || !errors.Is(err, opaenvoy.ErrBadRequest) {
				t.Errorf("%s: %v, %v", name, got["parsed_body"], err)
			}
			continue
		}
		if diff := cmp.Diff([]any{c.want, c.truncated}, []any{got["parsed_body"], got["truncated_body"]}); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}
