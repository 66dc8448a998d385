package main

import (
	"context"
	"crypto"
	"errors"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	"github.com/chancery-mesh/chancery/extauthz/wire"
	"github.com/chancery-mesh/chancery/passport"
)

// null does no work: what remains is the cost of the round trip.
type null struct{}

// Check implements [authv3.AuthorizationServer].
func (null) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return ok(), nil
}

// transport is null on the transport that Chancery has.
type transport struct{}

// Answer implements [wire.Checker].
func (transport) Answer(context.Context, *wire.Request) *wire.Response {
	return &wire.Response{Allowed: true}
}

func ok(headers ...*corev3.HeaderValueOption) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status: &status.Status{},
		HttpResponse: &authv3.CheckResponse_OkResponse{
			OkResponse: &authv3.OkHttpResponse{Headers: headers},
		},
	}
}

func denied(code typev3.StatusCode) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{
			DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: code}},
		},
	}
}

// floor is the least that somebody would write: golang-jwt, two ifs, no cache.
type floor struct {
	parser *jwt.Parser
	keys   map[string]crypto.PublicKey
	signer crypto.Signer // nil where no internal token is minted
	keyID  string
}

func newFloor(w *world, mints bool) *floor {
	f := &floor{
		parser: jwt.NewParser(jwt.WithValidMethods([]string{"RS256", "ES256"}),
			jwt.WithIssuer(issuer), jwt.WithAudience(audience), jwt.WithExpirationRequired()),
		keys: map[string]crypto.PublicKey{"rsa": w.rsa.Public(), "ec": w.ec.Public()},
	}
	if mints {
		f.signer, f.keyID = w.key, w.signer.KeyID()
	}
	return f
}

type floorClaims struct {
	jwt.RegisteredClaims
	Groups []string `json:"groups"`
	Tenant string   `json:"tenant"`
	Client string   `json:"client_id"`
	Scope  string   `json:"scope"`
}

// Check implements [authv3.AuthorizationServer].
func (f *floor) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	http := r.GetAttributes().GetRequest().GetHttp()
	token, isBearer := strings.CutPrefix(header(http, "authorization"), "Bearer ")
	var claims floorClaims
	if !isBearer || !f.verifies(token, &claims) {
		return denied(typev3.StatusCode_Unauthorized), nil
	}
	path, _, _ := strings.Cut(http.GetPath(), "?")
	may := http.GetMethod() == "GET" && strings.HasPrefix(path, "/orders/") && slices.Contains(claims.Groups, "sales") ||
		http.GetMethod() == "POST" && path == "/orders" && slices.Contains(claims.Groups, "sales-admin")
	if !may {
		return denied(typev3.StatusCode_Forbidden), nil
	}
	if f.signer == nil {
		return ok(), nil
	}
	return f.mint(http, &claims)
}

func (f *floor) verifies(token string, claims *floorClaims) bool {
	_, err := f.parser.ParseWithClaims(token, claims, f.key)
	return err == nil
}

func (f *floor) key(t *jwt.Token) (any, error) {
	id, _ := t.Header["kid"].(string)
	if key, ok := f.keys[id]; ok {
		return key, nil
	}
	return nil, errors.New("unknown key")
}

// header returns one, raw or merged.
func header(http *authv3.AttributeContext_HttpRequest, name string) string {
	for _, h := range http.GetHeaderMap().GetHeaders() {
		if h.GetKey() == name {
			return string(h.GetRawValue())
		}
	}
	return http.GetHeaders()[name]
}

// mint signs what Chancery's Passports say.
func (f *floor) mint(http *authv3.AttributeContext_HttpRequest, c *floorClaims) (*authv3.CheckResponse, error) {
	now := time.Now()
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "aud": domain, "txn": header(http, "x-request-id"),
		"sub": c.Subject, "scope": c.Scope, "req_wl": gatewayID,
		"tctx": map[string]any{"idp": provider, "tenant": c.Tenant, "groups": c.Groups, "client": c.Client},
		"rctx": map[string]any{"req_ip": "192.0.2.1", "authn": "access_token"},
	})
	t.Header["typ"], t.Header["kid"] = passport.Type, f.keyID
	token, err := t.SignedString(f.signer)
	if err != nil {
		return nil, err
	}
	return ok(&corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: "txn-token", Value: token},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}), nil
}
