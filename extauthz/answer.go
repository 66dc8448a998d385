package extauthz

import (
	"cmp"
	"encoding/json"
	"net/http"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/chancery-mesh/chancery/extauthz/credential"
)

// Headers that requests get, lose or are known by.
const (
	headerPassport    = "txn-token"
	headerRequestID   = "x-request-id"
	headerChallenge   = "www-authenticate"
	headerPartialBody = "x-envoy-auth-partial-body"
)

// credentialHeaders are those that no credential gets out of a gateway by.
var credentialHeaders = []string{
	credential.HeaderAuthorization, credential.HeaderIDToken, credential.HeaderAPIKey,
}

func (d *decision) response() *authv3.CheckResponse {
	if d.verdict != allowed {
		return d.denied()
	}
	ok := &authv3.OkHttpResponse{}
	if d.strips {
		ok.HeadersToRemove = credentialHeaders
	}
	switch {
	case d.passport != "":
		ok.Headers = []*corev3.HeaderValueOption{overwrite(headerPassport, d.passport)}
	case d.gateway: // one from outside is nobody's
		ok.HeadersToRemove = append(ok.GetHeadersToRemove(), headerPassport)
	}
	return &authv3.CheckResponse{
		Status:          &status.Status{Code: int32(codes.OK)},
		HttpResponse:    &authv3.CheckResponse_OkResponse{OkResponse: ok},
		DynamicMetadata: d.metadata(),
	}
}

// problem is what a client is told (RFC 9457): a word that is the same for all
// that it must not tell apart, and what to ask an operator with.
type problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Code     string `json:"code"`
	Decision string `json:"decision"`
}

// code returns what a client may know of a reason.
func (d *decision) code() string {
	switch {
	case d.verdict == loginTooWeak && d.Status == http.StatusUnauthorized, d.verdict == loginTooOld && d.Status == http.StatusUnauthorized:
		return "step_up_required"
	case d.Status == http.StatusUnauthorized:
		return "unauthenticated"
	case d.Status == http.StatusForbidden:
		return "forbidden"
	case d.Status == http.StatusServiceUnavailable:
		return "unavailable"
	}
	return "bad_request"
}

func (d *decision) denied() *authv3.CheckResponse {
	body, err := json.Marshal(problem{
		Type: "about:blank", Title: http.StatusText(d.Status), Status: d.Status, Code: d.code(), Decision: d.ID,
	})
	if err != nil {
		body = nil // texts and a number
	}
	denied := &authv3.DeniedHttpResponse{
		Status: &typev3.HttpStatus{Code: typev3.StatusCode(d.Status)},
		Headers: []*corev3.HeaderValueOption{
			overwrite("content-type", "application/problem+json"), overwrite("cache-control", "no-store"),
		},
		Body: string(body) + "\n",
	}
	if d.challenge != "" && d.Status == http.StatusUnauthorized {
		denied.Headers = append(denied.Headers, overwrite(headerChallenge, d.challenge))
	}
	return &authv3.CheckResponse{
		Status:          &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse:    &authv3.CheckResponse_DeniedResponse{DeniedResponse: denied},
		DynamicMetadata: d.metadata(),
	}
}

// clientStatus returns the HTTP status that a client sees: where a policy has
// one for all denials, it tells nobody whether to authenticate.
func (d *decision) clientStatus() int {
	code := int(cmp.Or(d.verdict.status, typev3.StatusCode_ServiceUnavailable))
	if d.denyStatus != 0 && code == http.StatusUnauthorized {
		return d.denyStatus
	}
	return code
}

func overwrite(key, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: key, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// metadata is what rate limits and access logs read.
func (d *decision) metadata() *structpb.Struct {
	var user, tenant, client string
	if id := d.Identity; id != nil {
		user, tenant, client = id.User, id.Tenant, id.Client
	}
	return &structpb.Struct{Fields: map[string]*structpb.Value{
		"user":     text(user),
		"tenant":   text(tenant),
		"client":   text(client),
		"plan":     text(d.Plan),
		"ip":       text(network(d.IP)),
		"caller":   text(d.Caller),
		"reason":   text(d.Reason),
		"decision": text(d.ID),
	}}
}

func text(s string) *structpb.Value { return structpb.NewStringValue(cmp.Or(s, unknown)) }
