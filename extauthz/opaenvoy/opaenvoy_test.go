package opaenvoy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz/opaenvoy"
	"github.com/chancery-mesh/chancery/extauthz/policy/rego"
	"github.com/chancery-mesh/chancery/extauthz/wire"
)

// setup is a policy and how it is served. The zero value of query is
// data.envoy.authz.allow.
type setup struct {
	module  string
	v0      bool
	query   string
	options rego.Options
	config  opaenvoy.Config
}

// serve returns a server of that policy, and what it logs.
func serve(t testing.TB, s setup) (*opaenvoy.Server, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	s.config.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	server, err := opaenvoy.New(s.config)
	if err != nil {
		t.Fatal(err)
	}
	module := rego.Module{File: "example.rego", Text: s.module}
	if s.v0 {
		module.Version = ast.RegoV0
	}
	policy, err := rego.Compile(t.Context(), rego.Source{Modules: []rego.Module{module}, Revision: "r1"})
	if err != nil {
		t.Fatal(err)
	}
	if s.query == "" {
		s.query = "data.envoy.authz.allow"
	}
	if s.options.Timeout == 0 {
		s.options.Timeout = time.Minute // on a busy machine
	}
	query, err := policy.Prepare(t.Context(), s.query, s.options)
	if err != nil {
		t.Fatal(err)
	}
	server.SetQuery(query)
	return server, &log
}

// outcome is what of an answer counts.
type outcome struct {
	code   codes.Code
	status typev3.StatusCode
	reason string
}

func (s setup) check(t testing.TB, req *authv3.CheckRequest) (*authv3.CheckResponse, outcome) {
	t.Helper()
	server, log := serve(t, s)
	resp, err := server.Check(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d records:\n%s", n, log)
	}
	var record struct {
		DecisionID string `json:"decision_id"`
		Reason     string `json:"reason"`
	}
	if err := json.Unmarshal(log.Bytes(), &record); err != nil {
		t.Fatal(err)
	}
	if id := resp.GetDynamicMetadata().GetFields()["decision_id"].GetStringValue(); id == "" || id != record.DecisionID {
		t.Errorf("decision_id %q in metadata, %q in the log", id, record.DecisionID)
	}
	return resp, outcome{codes.Code(resp.GetStatus().GetCode()), resp.GetDeniedResponse().GetStatus().GetCode(), record.Reason}
}

var (
	allowed = outcome{codes.OK, 0, "allowed"}
	denied  = outcome{codes.PermissionDenied, typev3.StatusCode_Forbidden, "policy_denied"}
)

func failed(reason string) outcome {
	return outcome{codes.PermissionDenied, typev3.StatusCode_Forbidden, reason}
}

func products(authorization, body string) *authv3.CheckRequest {
	return request(&authv3.AttributeContext_HttpRequest{
		Id: "13359530607844510314", Method: "GET", Path: "/api/v1/products", Host: "192.168.99.100:31380", Protocol: "HTTP/1.1", Body: body,
		Headers: map[string]string{
			":authority": "192.168.99.100:31380", ":method": "GET", ":path": "/api/v1/products", "accept": "*/*", "authorization": authorization,
			"content-length": "0", "x-request-id": "92a6c0f7-0250-944b-9cfc-ae10cbcedd8e",
		},
	})
}

var (
	bob     = products("Basic Ym9iOnBhc3N3b3Jk", `{"firstname": "foo", "lastname": "bar"}`)
	alice   = products("Basic YWxpY2U6cGFzc3dvcmQ=", `foo`)
	path    = request(&authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/my/test/path?a=1&a=2&x=y"})
	jsonReq = func(length, body string) *authv3.CheckRequest {
		headers := map[string]string{"content-type": "application/json"}
		if length != "" {
			headers["content-length"] = length
		}
		return request(&authv3.AttributeContext_HttpRequest{Method: "GET", Headers: headers, Body: body})
	}
	person = `{"firstname": "foo", "lastname": "bar", "dept": {"it": "eng"}}`
)

// roles is a policy in the style of the plugin's examples: roles from a table,
// for the user of Basic, or by what was parsed.
const roles = `package envoy.authz

import input.attributes.request.http as http_request

default allow = false

allow {
	roles_for_user[r]
	required_roles[r]
}

allow {
	input.parsed_path = ["my", "test", "path"]
	input.parsed_query.a = ["1", "2"]
	input.parsed_query.x = ["y"]
}

allow {
	input.parsed_body.firstname == "foo"
	input.parsed_body.lastname == "bar"
	input.parsed_body.dept.it == "eng"
}

roles_for_user[r] { r := user_roles[user_name][_] }

required_roles[r] {
	perm := role_perms[r][_]
	perm.method = http_request.method
	perm.path = http_request.path
}

user_name = parsed {
	[_, encoded] := split(http_request.headers.authorization, " ")
	[parsed, _] := split(base64url.decode(encoded), ":")
}

user_roles = {"alice": ["guest"], "bob": ["admin"]}

role_perms = {
	"guest": [{"method": "GET", "path": "/productpage"}],
	"admin": [{"method": "GET", "path": "/productpage"}, {"method": "GET", "path": "/api/v1/products"}],
}
`

const object = `package envoy.authz

default allow = {
	"allowed": false,
	"headers": {"foo": "bar", "baz": "taz"},
	"body": "Unauthorized Request",
	"http_status": 301
}

allow = response {
	input.parsed_path = ["my", "test", "path"]
	response := {"allowed": true, "headers": {"x": "hello", "y": "world"}}
}
`

const truncated = `package envoy.authz

default allow = false

allow { not input.truncated_body }
`

// The plugin's own cases: what it allows and denies.
func TestPluginDecisions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		setup
		req  *authv3.CheckRequest
		want outcome
	}{
		"allow":                    {setup{module: roles, v0: true}, bob, allowed},
		"deny":                     {setup{module: roles, v0: true}, alice, denied},
		"parsed path and query":    {setup{module: roles, v0: true}, path, allowed},
		"parsed body":              {setup{module: roles, v0: true}, jsonReq("", person), allowed},
		"body that is not parsed":  {setup{module: roles, v0: true}, request(&authv3.AttributeContext_HttpRequest{Method: "GET", Body: "foo"}), denied},
		"object, allow":            {setup{module: object, v0: true}, path, allowed},
		"object, deny":             {setup{module: object, v0: true}, alice, outcome{codes.PermissionDenied, typev3.StatusCode_MovedPermanently, "policy_denied"}},
		"truncated body":           {setup{module: truncated, v0: true}, jsonReq("100000", person), denied},
		"whole body":               {setup{module: truncated, v0: true}, jsonReq("62", person), allowed},
		"malformed body":           {setup{module: roles, v0: true}, jsonReq("", `["foo" : 42}`), outcome{codes.PermissionDenied, typev3.StatusCode_BadRequest, "request_unreadable"}},
		"malformed body, skipped":  {setup{module: truncated, v0: true, config: opaenvoy.Config{Input: opaenvoy.InputOptions{SkipBody: true}}}, jsonReq("", `["foo" : 42}`), allowed},
		"a number":                 {setup{module: "package envoy.authz\ndefault allow = 1", v0: true}, bob, failed("policy_illegal_decision")},
		"version of the input":     {setup{module: "package envoy.authz\nallow { input.version.ext_authz == \"v3\"; input.version.encoding == \"protojson\" }", v0: true}, bob, allowed},
		"query in another package": {setup{module: "package istio.authz\nallow = true", v0: true, query: "data.istio.authz.allow"}, bob, allowed},
		"the same in today's Rego": {setup{module: "package envoy.authz\ndefault allow := false\nallow if input.parsed_path[0] == \"api\""}, bob, allowed},
		"today's Rego denies, too": {setup{module: "package envoy.authz\ndefault allow := false\nallow if input.parsed_path[0] == \"x\""}, bob, denied},
		"undefined":                {setup{module: "package envoy.authz\nallow if input.absent"}, bob, outcome{codes.PermissionDenied, typev3.StatusCode_Forbidden, "policy_undefined"}},
		"rules that conflict":      {setup{module: "package envoy.authz\nallow := true if input.version\nallow := false if input.version"}, bob, failed("policy_error")},
		"another status of errors": {setup{module: "package envoy.authz\nallow := 1", config: opaenvoy.Config{StatusOnError: 503}}, bob, outcome{codes.PermissionDenied, typev3.StatusCode_ServiceUnavailable, "policy_illegal_decision"}},
		"empty request":            {setup{module: "package envoy.authz\nallow := true"}, &authv3.CheckRequest{}, allowed},
		"source principal":         {setup{module: "package envoy.authz\nallow if input.source_principal == \"spiffe://a/b\""}, checkRequest(t, `{"attributes": {"source": {"principal": "spiffe://a/b"}}}`), allowed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if resp, got := c.check(t, c.req); got != c.want {
				t.Errorf("%+v, want %+v\n%v", got, c.want, resp)
			}
		})
	}
}

// What is no decision denies (R04).
func TestIllegalDecisions(t *testing.T) {
	t.Parallel()
	for _, decision := range []string{
		`"true"`, `1`, `null`, `[true]`, `{true}`, `set()`, `{}`, `{"allow": true}`, `{"allowed": "true"}`, `{"allowed": 1}`, `{"allowed": null}`, `{"allowed": {}}`,
		`{"allowed": true, "headers": "test"}`, `{"allowed": true, "headers": {"a": 1}}`, `{"allowed": true, "headers": ["a"]}`, `{"allowed": true, "headers": {"a": [1]}}`,
		`{"allowed": true, "headers": [{"a": {"b": "c"}}]}`, `{"allowed": true, "headers": null}`, `{"allowed": true, "headers": {"a": "b\r\nx-role: admin"}}`,
		`{"allowed": true, "headers": {"a\nb": "c"}}`, `{"allowed": true, "headers": {"": "c"}}`,
		`{"allowed": true, "response_headers_to_add": "test"}`, `{"allowed": true, "response_headers_to_add": {"a": "b", "baz": 1}}`,
		`{"allowed": true, "request_headers_to_remove": "test"}`, `{"allowed": true, "request_headers_to_remove": [1]}`, `{"allowed": true, "request_headers_to_remove": 1}`,
		`{"allowed": true, "query_parameters_to_remove": "test"}`, `{"allowed": true, "query_parameters_to_remove": [1]}`,
		`{"allowed": true, "query_parameters_to_set": "invalid"}`, `{"allowed": true, "query_parameters_to_set": {"a": 123}}`, `{"allowed": true, "query_parameters_to_set": {"a": [123]}}`,
		`{"allowed": true, "dynamic_metadata": 123}`, `{"allowed": true, "dynamic_metadata": null}`,
		`{"allowed": false, "body": 123}`, `{"allowed": false, "http_status": true}`, `{"allowed": false, "http_status": 1}`, `{"allowed": false, "http_status": 9999}`,
		`{"allowed": false, "body": base64.decode("/w==")}`, `{"allowed": true, "headers": {"a": base64.decode("/w==")}}`,
		`{"allowed": true, "headers": {base64.decode("/w=="): "a"}}`, `{"allowed": true, "headers": {"a": [base64.decode("/w==")]}}`,
		`{"allowed": true, "request_headers_to_remove": [base64.decode("/w==")]}`, `{"allowed": true, "dynamic_metadata": {"a": base64.decode("/w==")}}`,
		`{"allowed": true, "query_parameters_to_set": {base64.decode("/w=="): "a"}}`, `{"allowed": true, "dynamic_metadata": {base64.decode("/w=="): "a"}}`,
		`{"allowed": false, "http_status": "403"}`, `{"allowed": false, "http_status": 403.5}`, `{"allowed": false, "http_status": 4294967699}`, `{"allowed": false, "http_status": 100}`,
	} {
		_, got := setup{module: "package envoy.authz\nallow := " + decision}.check(t, bob)
		if got != failed("policy_illegal_decision") {
			t.Errorf("%s: %+v", decision, got)
		}
	}
	// What does not concern the decision is not looked at, as in the plugin.
	for _, decision := range []string{
		`{"allowed": true, "body": 123}`, `{"allowed": true, "http_status": 9999}`, `{"allowed": true, "unknown": 1}`,
	} {
		if _, got := (setup{module: "package envoy.authz\nallow := " + decision}).check(t, bob); got != allowed {
			t.Errorf("%s: %+v", decision, got)
		}
	}
}

func header(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}}
}

func TestObjectDecisions(t *testing.T) {
	t.Parallel()
	ok := func(http *authv3.OkHttpResponse) *authv3.CheckResponse {
		return &authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: http}}
	}
	no := func(http *authv3.DeniedHttpResponse) *authv3.CheckResponse {
		return &authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: http}}
	}
	forbidden := &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden}
	for decision, want := range map[string]*authv3.CheckResponse{
		`true`:  ok(&authv3.OkHttpResponse{}),
		`false`: no(&authv3.DeniedHttpResponse{Status: forbidden}),
		`{"allowed": true, "headers": {"y": "world", "x": "hello"}}`: ok(&authv3.OkHttpResponse{
			Headers: []*corev3.HeaderValueOption{header("x", "hello"), header("y", "world")},
		}),
		`{"allowed": true, "headers": [{"foo": "bar"}, {"foo": "baz"}]}`: ok(&authv3.OkHttpResponse{
			Headers: []*corev3.HeaderValueOption{header("foo", "bar"), header("foo", "baz")},
		}),
		`{"allowed": true, "headers": {"foo": ["bar", "baz"]}, "request_headers_to_remove": ["foo", "bar"]}`: ok(&authv3.OkHttpResponse{
			Headers:         []*corev3.HeaderValueOption{header("foo", "bar"), header("foo", "baz")},
			HeadersToRemove: []string{"foo", "bar"},
		}),
		`{"allowed": true, "response_headers_to_add": {"x": "hello", "y": "world"}}`: ok(&authv3.OkHttpResponse{
			ResponseHeadersToAdd: []*corev3.HeaderValueOption{header("x", "hello"), header("y", "world")},
		}),
		`{"allowed": true, "query_parameters_to_set": {"p": "single", "q": ["multi1", "multi2"]}, "query_parameters_to_remove": ["foo", "bar"]}`: ok(&authv3.OkHttpResponse{
			QueryParametersToSet: []*corev3.QueryParameter{
				{Key: "p", Value: "single"}, {Key: "q", Value: "multi1"}, {Key: "q", Value: "multi2"},
			},
			QueryParametersToRemove: []string{"foo", "bar"},
		}),
		`{"allowed": false, "headers": {"foo": "bar"}, "body": "Unauthorized Request", "http_status": 301}`: no(&authv3.DeniedHttpResponse{
			Headers: []*corev3.HeaderValueOption{header("foo", "bar")}, Body: "Unauthorized Request",
			Status: &typev3.HttpStatus{Code: typev3.StatusCode_MovedPermanently},
		}),
		`{"allowed": false, "body": "no", "request_headers_to_remove": ["a"]}`: no(&authv3.DeniedHttpResponse{Status: forbidden, Body: "no"}),
	} {
		got, _ := setup{module: "package envoy.authz\nallow := " + decision}.check(t, bob)
		if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(got, "status", "dynamic_metadata")); diff != "" {
			t.Errorf("%s (-want +got)\n%s", decision, diff)
		}
	}
}

func TestDynamicMetadata(t *testing.T) {
	t.Parallel()
	for decision, want := range map[string]map[string]any{
		`true`: {"reason": "allowed"},
		`{"allowed": true, "dynamic_metadata": {"foo": "bar", "n": 1.5, "deep": {"a": [true]}}}`: {
			"foo": "bar", "n": 1.5, "deep": map[string]any{"a": []any{true}}, "reason": "allowed",
		},
		`{"allowed": false, "dynamic_metadata": {"reason": "mine", "decision_id": "mine"}}`: {"reason": "mine"},
	} {
		resp, _ := setup{module: "package envoy.authz\nallow := " + decision}.check(t, bob)
		got := resp.GetDynamicMetadata().AsMap()
		delete(got, "decision_id") // compared with the log's by check
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", decision, diff)
		}
	}
}

// CVE-2026-26205: a policy that protects /admin by its first segment.
func TestDoubleSlashIsNoHost(t *testing.T) {
	t.Parallel()
	const policy = "package envoy.authz\ndefault allow := true\nallow := false if input.parsed_path[0] == \"admin\""
	for _, target := range []string{"/admin", "//admin", "///admin", "//admin/secret", "/admin?x=/public", "/%2fadmin"} {
		req := request(&authv3.AttributeContext_HttpRequest{Method: "GET", Path: target})
		for _, ambiguous := range []bool{false, true} {
			_, got := setup{module: policy, config: opaenvoy.Config{Input: opaenvoy.InputOptions{AmbiguousPaths: ambiguous}}}.check(t, req)
			if got.code != codes.PermissionDenied {
				t.Errorf("%s, ambiguous paths %v: %+v", target, ambiguous, got)
			}
		}
	}
}

func TestNothingToDecideBy(t *testing.T) {
	t.Parallel()
	server, err := opaenvoy.New(opaenvoy.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if server.Ready() == nil {
		t.Error("ready without a policy")
	}
	for _, req := range []*authv3.CheckRequest{bob, nil} {
		resp, err := server.Check(t.Context(), req)
		if err != nil || resp.GetStatus().GetCode() != int32(codes.PermissionDenied) ||
			resp.GetDeniedResponse().GetStatus().GetCode() != typev3.StatusCode_ServiceUnavailable {
			t.Errorf("%v, %v", resp, err)
		}
	}
	server, _ = serve(t, setup{module: roles, v0: true})
	if err := server.Ready(); err != nil {
		t.Error(err)
	}
	server.SetQuery(nil)
	if resp, _ := server.Check(t.Context(), bob); resp.GetStatus().GetCode() == int32(codes.OK) || server.Ready() == nil {
		t.Errorf("after the policy went: %v", resp)
	}
}

// Attack row H09: what does not decode is denied, like everything else that cannot
// be decided. An error of gRPC is let pass by Envoys that are told to.
func TestMalformedIsDenied(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	recorded := make(chan string, 1)
	server, log := serve(t, setup{module: "package envoy.authz\nallow := true", config: opaenvoy.Config{
		Registerer: registry, Record: func(e *audit.Explained) error { recorded <- e.Reason; return nil },
	}})
	conn := listen(t, server)
	nest := func(data []byte, fields ...protowire.Number) []byte {
		for _, n := range slices.Backward(fields) {
			data = protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), data)
		}
		return data
	}
	pair := slices.Concat(nest([]byte("x"), 1), nest([]byte("\xc3\x28"), 2))
	for _, row := range []struct {
		name, reason string
		data         []byte
	}{
		{"nothing wrong", "allowed", nest([]byte("/"), 1, 4, 2, 4)},
		{"H09 path not UTF-8", "request_malformed", nest([]byte("/\xff"), 1, 4, 2, 4)},
		{"H09 header not UTF-8", "request_malformed", nest(pair, 1, 4, 2, 3)},
		{"H09 principal not UTF-8", "request_malformed", nest([]byte("\xff"), 1, 1, 4)},
		{"cut", "request_malformed", []byte{0x0a, 0xff}},
		{"no message", "request_malformed", []byte{0xff}},
	} {
		request := &authv3.CheckRequest{}
		request.ProtoReflect().SetUnknown(row.data)
		got, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), request)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		if reason := <-recorded; reason != row.reason || got.GetDynamicMetadata().GetFields()["reason"].GetStringValue() != row.reason {
			t.Errorf("%s: %s is recorded, and the answer %v", row.name, reason, got)
		}
		want := outcome{codes.OK, 0, row.reason}
		if row.reason != "allowed" {
			want = outcome{codes.PermissionDenied, typev3.StatusCode_ServiceUnavailable, row.reason}
		}
		if got := (outcome{codes.Code(got.GetStatus().GetCode()), got.GetDeniedResponse().GetStatus().GetCode(), row.reason}); got != want {
			t.Errorf("%s: %+v", row.name, got)
		}
	}
	if n := strings.Count(log.String(), `"level":"INFO","msg":"check denied"`); n != 5 {
		t.Errorf("%d denials are logged:\n%s", n, log)
	}
	const counted = `
# HELP chancery_checks_total Authorization checks, by the policy and route that decided, and why.
# TYPE chancery_checks_total counter
chancery_checks_total{decision="allow",policy="rego",reason="allowed",route=""} 1
chancery_checks_total{decision="deny",policy="rego",reason="request_malformed",route=""} 5
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(counted), "chancery_checks_total"); err != nil {
		t.Error(err)
	}
}

// listen serves s as the command does, until the test ends.
func listen(t *testing.T, s *opaenvoy.Server) *grpc.ClientConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(wire.ServerOptions()...)
	s.Register(server)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestCheckContextTimeout and TestCheckContextCancelled of the plugin, and a
// policy that takes too long.
func TestTooLate(t *testing.T) {
	t.Parallel()
	server, log := serve(t, setup{module: roles, v0: true})
	ctx, cancel := context.WithTimeout(t.Context(), -time.Second)
	defer cancel()
	resp, err := server.Check(ctx, bob)
	if err != nil || resp.GetStatus().GetCode() == int32(codes.OK) || !strings.Contains(log.String(), `"reason":"cancelled"`) {
		t.Errorf("%v, %v\n%s", resp, err, log)
	}
	slow := setup{
		module:  "package envoy.authz\nallow if count(numbers.range(0, 1000000000)) > 0",
		options: rego.Options{Timeout: 10 * time.Millisecond},
	}
	if _, got := slow.check(t, bob); got != failed("policy_timeout") {
		t.Errorf("%+v", got)
	}
}

// trace panics, as a fault in OPA would.
func init() {
	topdown.RegisterBuiltinFunc(ast.Trace.Name, func(topdown.BuiltinContext, []*ast.Term, func(*ast.Term) error) error {
		panic("a fault")
	})
}

func TestPanicDenies(t *testing.T) {
	t.Parallel()
	if _, got := (setup{module: "package envoy.authz\nallow if trace(\"\")"}).check(t, bob); got != failed("policy_error") {
		t.Errorf("%+v", got)
	}
}

// What clients sent is no matter for the log.
func TestLogHasNoSecrets(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t"
	for _, policy := range []string{
		"allow := true", "allow := false", "allow := input", "allow if input.absent", "allow if { print(input); false }",
		"allow := 1 if input.version\nallow := 2 if input.version", "allow := {\"allowed\": input}", "allow := {\"allowed\": true, \"headers\": {\"a\": input}}",
	} {
		for _, contentType := range []string{"application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=s3cr3t", "text/plain", secret} {
			server, log := serve(t, setup{module: "package envoy.authz\n" + policy})
			for _, body := range []string{secret, `"s3cr3t`, "%zs3cr3t", "--s3cr3t\ns3cr3t\n--s3cr3t--"} {
				if _, err := server.Check(t.Context(), request(&authv3.AttributeContext_HttpRequest{
					Path: "/" + secret + "?q=" + secret, Body: body, Headers: map[string]string{
						"authorization": "Bearer " + secret, "content-type": contentType, "content-length": secret, "cookie": secret,
					},
				})); err != nil {
					t.Fatal(err)
				}
			}
			if strings.Contains(log.String(), secret) {
				t.Errorf("%s, %s:\n%s", policy, contentType, log)
			}
		}
	}
}

// What is too large to be judged is refused, and recorded.
func TestLargeBodies(t *testing.T) {
	t.Parallel()
	for size, want := range map[int]string{16 << 20: "allowed", 16<<20 + 1: "body_too_large"} {
		for _, http := range []*authv3.AttributeContext_HttpRequest{
			{Path: "/", Body: strings.Repeat("x", size)}, {Path: "/", RawBody: make([]byte, size)},
		} {
			var recorded audit.Explained
			_, got := setup{module: "package envoy.authz\nallow := true", config: opaenvoy.Config{
				Record: func(e *audit.Explained) error { recorded = *e; return nil },
			}}.check(t, request(http))
			if got.reason != want || recorded.Reason != want {
				t.Errorf("%d: %+v, recorded %s", size, got, recorded.Reason)
			}
			if want != "allowed" && got.status != typev3.StatusCode_PayloadTooLarge {
				t.Errorf("status %d", got.status)
			}
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	logger := slog.New(slog.DiscardHandler)
	for _, c := range []opaenvoy.Config{{}, {Logger: logger, StatusOnError: 200}, {Logger: logger, StatusOnError: 999}, {Logger: logger, StatusOnError: -1}} {
		if _, err := opaenvoy.New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	setup{module: roles, v0: true, config: opaenvoy.Config{Registerer: registry}}.check(t, alice)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range families {
		text.WriteString(f.String())
	}
	for _, want := range []string{`name:"chancery_checks_total"`, `name:"reason"  value:"policy_denied"`, `name:"chancery_check_duration_seconds"`} {
		if !strings.Contains(strings.ReplaceAll(text.String(), `" value`, `"  value`), want) {
			t.Errorf("no %s in %s", want, text.String())
		}
	}
}
