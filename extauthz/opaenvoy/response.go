package opaenvoy

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
)

// answer makes Envoy's answer of what a policy says: a boolean, or an object
// with the member allowed and what goes with it. Anything else is an error.
func answer(result any) (*authv3.CheckResponse, error) {
	switch result := result.(type) {
	case bool:
		if result {
			return ok(&authv3.OkHttpResponse{}), nil
		}
		return denied(&authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden}}), nil
	case map[string]any:
		d := decision{members: result}
		resp := d.response()
		return resp, d.err
	}
	return nil, fmt.Errorf("the decision is %s, and not a boolean or an object", kind(result))
}

func ok(http *authv3.OkHttpResponse) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status:       &status.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: http},
	}
}

func denied(http *authv3.DeniedHttpResponse) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status:       &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: http},
	}
}

// decision is a policy's object. Its methods read members; err is the first one
// that is not what it must be.
type decision struct {
	members map[string]any
	err     error
}

func (d *decision) response() (resp *authv3.CheckResponse) {
	allowed, isBool := d.members["allowed"].(bool)
	if !isBool {
		d.fail("allowed", "a boolean", d.members["allowed"])
		return nil
	}
	headers := d.headers("headers")
	if allowed {
		resp = ok(&authv3.OkHttpResponse{
			Headers:                 headers,
			HeadersToRemove:         d.strings("request_headers_to_remove"),
			ResponseHeadersToAdd:    d.headers("response_headers_to_add"),
			QueryParametersToSet:    d.queryParameters("query_parameters_to_set"),
			QueryParametersToRemove: d.strings("query_parameters_to_remove"),
		})
	} else {
		resp = denied(&authv3.DeniedHttpResponse{
			Headers: headers, Body: d.text("body"), Status: &typev3.HttpStatus{Code: d.status("http_status")},
		})
	}
	resp.DynamicMetadata = d.metadata("dynamic_metadata")
	return resp
}

func (d *decision) fail(member, want string, have any) {
	if d.err == nil {
		d.err = fmt.Errorf("the decision's %s is %s, and not %s", member, kind(have), want)
	}
}

// kind names the type of a value of a policy, as Rego's type_name does.
func kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case string:
		return "a string"
	case json.Number:
		return "a number"
	case []any:
		return "an array or set"
	}
	return "an object"
}

func (d *decision) text(member string) string {
	v, there := d.members[member]
	s, ok := text(v)
	if there && !ok {
		d.fail(member, "text in UTF-8", v)
	}
	return s
}

// text returns a string that can be sent: a policy decodes base64, and what comes
// of it may be no text.
func text(v any) (string, bool) {
	s, isString := v.(string)
	return s, isString && utf8.ValidString(s)
}

func (d *decision) strings(member string) []string {
	v, there := d.members[member]
	if !there {
		return nil
	}
	list, ok := stringList(v)
	if !ok {
		d.fail(member, "a list of strings", v)
	}
	return list
}

func stringList(v any) ([]string, bool) {
	list, ok := v.([]any)
	out := make([]string, len(list))
	for i := 0; ok && i < len(list); i++ {
		out[i], ok = text(list[i])
	}
	return out, ok
}

// stringOrList returns a string, or each of a list.
func stringOrList(v any) ([]string, bool) {
	if s, ok := text(v); ok {
		return []string{s}, true
	}
	return stringList(v)
}

// headers reads an object of header lines, or a list of such objects. Envoy sets
// them, in place of those of that name.
func (d *decision) headers(member string) []*corev3.HeaderValueOption {
	v, there := d.members[member]
	if !there {
		return nil
	}
	objects, isList := v.([]any)
	if !isList {
		objects = []any{v}
	}
	var headers []*corev3.HeaderValueOption
	for _, object := range objects {
		lines, ok := object.(map[string]any)
		if !ok {
			d.fail(member, "an object of headers", object)
			return nil
		}
		for _, name := range slices.Sorted(maps.Keys(lines)) {
			for _, value := range d.headerLines(member, name, lines[name]) {
				headers = append(headers, &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}})
			}
		}
	}
	return headers
}

func (d *decision) headerLines(member, name string, v any) []string {
	values, ok := stringOrList(v)
	if !ok {
		d.fail(member+"."+name, "a string or a list of strings", v)
	}
	for _, value := range values {
		if name == "" || !utf8.ValidString(name) || strings.ContainsAny(name+value, "\r\n\x00") {
			d.fail(member+"."+name, "a header line", v)
		}
	}
	return values
}

func (d *decision) queryParameters(member string) []*corev3.QueryParameter {
	v, there := d.members[member]
	if !there {
		return nil
	}
	parameters, isObject := v.(map[string]any)
	if !isObject {
		d.fail(member, "an object", v)
	}
	var list []*corev3.QueryParameter
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		values, ok := stringOrList(parameters[name])
		if !ok || !utf8.ValidString(name) {
			d.fail(member+"."+name, "a string or a list of strings", parameters[name])
		}
		for _, value := range values {
			list = append(list, &corev3.QueryParameter{Key: name, Value: value})
		}
	}
	return list
}

// status reads the status of a denial, 403 if there is none.
func (d *decision) status(member string) typev3.StatusCode {
	v, there := d.members[member]
	if !there {
		return typev3.StatusCode_Forbidden
	}
	number, _ := v.(json.Number)
	code, err := number.Int64()
	if _, known := typev3.StatusCode_name[int32(code)]; err != nil || !known || int64(int32(code)) != code || code < 200 {
		d.fail(member, "the code of an HTTP status", v)
	}
	return typev3.StatusCode(code)
}

func (d *decision) metadata(member string) *structpb.Struct {
	v, there := d.members[member]
	if !there {
		return nil
	}
	object, isObject := v.(map[string]any)
	if !isObject {
		d.fail(member, "an object", v)
		return nil
	}
	s, err := structpb.NewStruct(object)
	if err != nil && d.err == nil {
		d.err = fmt.Errorf("the decision's %s: %w", member, err)
	}
	return s
}
