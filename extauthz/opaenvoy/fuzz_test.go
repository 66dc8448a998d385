package opaenvoy_test

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/extauthz/opaenvoy"
	"github.com/chancery-mesh/chancery/extauthz/policy/rego"
	"github.com/chancery-mesh/chancery/extauthz/wire"
)

// Whatever a request is, the policy sees what it says and nothing else, and what
// cannot be shown to it is denied.
func FuzzInput(f *testing.F) {
	compiled, err := rego.Compile(f.Context(), rego.Source{Modules: []rego.Module{{File: "a.rego", Text: `package envoy.authz
default allow := false
http := input.attributes.request.http
allow if { http.method == "GET"; input.parsed_path == ["ok", "x"] }
allow if { http.method == "POST"; not input.truncated_body; is_number(input.parsed_body.amount); input.parsed_body.amount < 10 }
allow if { http.method == "PUT"; input.parsed_query.admin == ["no"]; not "yes" in input.parsed_query.admin }`}}})
	if err != nil {
		f.Fatal(err)
	}
	query, err := compiled.Prepare(f.Context(), "data.envoy.authz.allow", rego.Options{})
	if err != nil {
		f.Fatal(err)
	}
	server, err := opaenvoy.New(opaenvoy.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	server.SetQuery(query)
	json := map[string]string{"content-type": "application/json"}
	for _, http := range []*authv3.AttributeContext_HttpRequest{
		{Method: "GET", Path: "/ok/x"},
		{Method: "GET", Path: "//ok/x"},
		{Method: "GET", Path: "/ok%2fx"},
		{Method: "PUT", Path: "/?admin=no&x=;y"},
		{Method: "POST", Path: "/a", Headers: json, Body: `{"amount":5}`},
		{Method: "POST", Path: "/a", Headers: json, RawBody: []byte(`{"amount":5,"amount":50}`)},
		{Method: "POST", Path: "/a", Headers: map[string]string{"content-type": "multipart/form-data; boundary=b"}, Body: "--b\r\ncontent-disposition: form-data; name=amount\r\ncontent-type: application/json\r\n\r\n5\r\n--b--"},
		{Method: "POST", Path: "/a", Headers: map[string]string{"content-type": "application/x-www-form-urlencoded"}, Body: "amount=5"},
		{Method: "POST", Path: "/a", Headers: map[string]string{"content-type": "application/json", "x-envoy-auth-partial-body": "true"}, Body: `{"amount":5}`},
	} {
		data, err := proto.Marshal(request(http))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte{0x0a, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		response := server.Answer(t.Context(), wire.ParseRequest(data)).Message
		if response.GetOkResponse() == nil && response.GetDeniedResponse().GetStatus().GetCode() < 400 {
			t.Fatal(response)
		}
		if _, err := proto.Marshal(response); err != nil {
			t.Fatal(err)
		}
		var r authv3.CheckRequest
		malformed := proto.Unmarshal(data, &r) != nil
		if response.GetStatus().GetCode() == 0 && (malformed || !mayBeAllowed(r.GetAttributes().GetRequest().GetHttp())) {
			t.Errorf("allowed %v", &r)
		}
	})
}

// mayBeAllowed looks at a request by itself.
func mayBeAllowed(http *authv3.AttributeContext_HttpRequest) bool {
	path, query, _ := strings.Cut(http.GetPath(), "?")
	switch http.GetMethod() {
	case "GET":
		return path == "/ok/x"
	case "PUT":
		return strings.Count(query, "admin") < 2 && !strings.Contains(query, "yes")
	case "POST":
		body := []byte(http.GetBody())
		if len(body) == 0 {
			body = http.GetRawBody()
		}
		var v struct{ Amount *json.Number }
		if json.Unmarshal(body, &v) != nil { // multipart bodies have parts in lists
			return false
		}
		if v.Amount == nil {
			return false
		}
		n, err := v.Amount.Float64()
		return err == nil && n < 10
	}
	return false
}
