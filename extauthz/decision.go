package extauthz

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
)

// verdict is how a check ends: the reason for operators, and the status for the
// client. The zero value denies.
type verdict struct {
	reason string
	status typev3.StatusCode
}

var allowed = verdict{"allowed", typev3.StatusCode_OK}

// What is refused for the request's own sake.
var (
	ambiguousPath    = verdict{"path_ambiguous", typev3.StatusCode_BadRequest}
	routeMismatch    = verdict{"route_mismatch", typev3.StatusCode_Forbidden}
	callerNotAllowed = verdict{"caller_not_allowed", typev3.StatusCode_Forbidden}
	// A certificate that is not what it was when the connection was made.
	callerCertificateMissing  = verdict{"caller_certificate_missing", typev3.StatusCode_Forbidden}
	callerCertificateInvalid  = verdict{"caller_certificate_invalid", typev3.StatusCode_Forbidden}
	callerCertificateMismatch = verdict{"caller_certificate_mismatch", typev3.StatusCode_Forbidden}
	callerCertificateRevoked  = verdict{"caller_certificate_revoked", typev3.StatusCode_Forbidden}
	callerCertificateExpired  = verdict{"caller_certificate_expired", typev3.StatusCode_Forbidden}
	tenantNotAccepted         = verdict{"tenant_not_accepted", typev3.StatusCode_Forbidden}
	policyDenied              = verdict{"policy_denied", typev3.StatusCode_Forbidden}
	policyError               = verdict{"policy_error", typev3.StatusCode_Forbidden}
	passportTooLarge          = verdict{"passport_too_large", typev3.StatusCode_Forbidden}
)

// What is refused because nobody could decide.
var (
	noState           = verdict{"no_state", typev3.StatusCode_ServiceUnavailable}
	unknownPolicy     = verdict{"unknown_policy", typev3.StatusCode_ServiceUnavailable}
	unknownRoute      = verdict{"unknown_route", typev3.StatusCode_ServiceUnavailable}
	incompleteRequest = verdict{"request_incomplete", typev3.StatusCode_ServiceUnavailable}
	noKeys            = verdict{"no_keys", typev3.StatusCode_ServiceUnavailable}
	staleKeys         = verdict{"keys_stale", typev3.StatusCode_ServiceUnavailable}
	noTrust           = verdict{"no_trust", typev3.StatusCode_ServiceUnavailable}
	noSigningKey      = verdict{"no_signing_key", typev3.StatusCode_ServiceUnavailable}
	cancelled         = verdict{"cancelled", typev3.StatusCode_ServiceUnavailable}
	internalError     = verdict{"internal_error", typev3.StatusCode_ServiceUnavailable}
)

// unauthenticated refuses a credential that is missing or not valid.
func unauthenticated(reason string) verdict {
	return verdict{reason, typev3.StatusCode_Unauthorized}
}

// decision is everything that one check came to.
type decision struct {
	verdict
	// cause is for the log alone.
	cause error

	policy, route, requestID         string
	user, tenant, client, ip, caller string
	// challenge goes with a 401.
	challenge string
	// passport is the token that a gateway minted.
	passport string
}

// Headers that an allowed request gets or loses at a gateway.
const (
	headerPassport      = "txn-token"
	headerAuthorization = "authorization"
	headerRequestID     = "x-request-id"
	headerChallenge     = "www-authenticate"
)

func (d *decision) response() *authv3.CheckResponse {
	if d.verdict != allowed {
		return d.denied()
	}
	ok := &authv3.OkHttpResponse{}
	if d.passport != "" {
		ok.Headers = []*corev3.HeaderValueOption{overwrite(headerPassport, d.passport)}
		ok.HeadersToRemove = []string{headerAuthorization}
	}
	return &authv3.CheckResponse{
		Status:          &status.Status{Code: int32(codes.OK)},
		HttpResponse:    &authv3.CheckResponse_OkResponse{OkResponse: ok},
		DynamicMetadata: d.metadata(),
	}
}

func (d *decision) denied() *authv3.CheckResponse {
	http := &authv3.DeniedHttpResponse{
		Status: &typev3.HttpStatus{Code: cmp.Or(d.status, typev3.StatusCode_ServiceUnavailable)},
		Body:   "access denied\n",
	}
	if d.challenge != "" {
		http.Headers = []*corev3.HeaderValueOption{overwrite(headerChallenge, d.challenge)}
	}
	return &authv3.CheckResponse{
		Status:          &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse:    &authv3.CheckResponse_DeniedResponse{DeniedResponse: http},
		DynamicMetadata: d.metadata(),
	}
}

func overwrite(key, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: key, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// unknown stands for what is not known in metadata, since Envoy makes no rate
// limit descriptor of an empty value.
const unknown = "-"

// metadata is what rate limits and access logs read.
func (d *decision) metadata() *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{
		"user":   structpb.NewStringValue(cmp.Or(d.user, unknown)),
		"tenant": structpb.NewStringValue(cmp.Or(d.tenant, unknown)),
		"client": structpb.NewStringValue(cmp.Or(d.client, unknown)),
		"ip":     structpb.NewStringValue(cmp.Or(network(d.ip), unknown)),
		"caller": structpb.NewStringValue(cmp.Or(d.caller, unknown)),
		"reason": structpb.NewStringValue(cmp.Or(d.reason, unknown)),
	}}
}

// network returns an IPv4 address as it is, and an IPv6 address as the /64 that
// one host commands: limits by address would not hold it otherwise.
func network(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Is4() {
		return address
	}
	return netip.PrefixFrom(ip, 64).Masked().String()
}

func (s *Server) log(ctx context.Context, d *decision) {
	level := slog.LevelInfo
	if d.verdict == allowed {
		level = slog.LevelDebug
	}
	if !s.logger.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("policy", d.policy), slog.String("route", d.route), slog.String("reason", d.reason),
		slog.String("sub", d.user), slog.String("caller", d.caller), slog.String("request_id", d.requestID),
	}
	if d.cause != nil {
		attrs = append(attrs, slog.Any("err", d.cause))
	}
	if d.verdict == allowed {
		s.logger.LogAttrs(ctx, level, "check allowed", attrs...)
	} else {
		s.logger.LogAttrs(ctx, level, "check denied", attrs...)
	}
}
