package extauthz

import (
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/chancery-mesh/chancery/audit"
)

// verdict is how a check ends: the reason for operators, and the status for the
// client. The zero value denies.
type verdict struct {
	// reason is stable: docs/reasons.md has a paragraph for each.
	reason string
	status typev3.StatusCode
}

var allowed = verdict{"allowed", typev3.StatusCode_OK}

// What is refused for the request's own sake.
var (
	ambiguousPath   = verdict{"path_ambiguous", typev3.StatusCode_BadRequest}
	routeMismatch   = verdict{"route_mismatch", typev3.StatusCode_Forbidden}
	bodyTruncated   = verdict{"body_truncated", typev3.StatusCode_PayloadTooLarge}
	routeClosed     = verdict{"route_closed", typev3.StatusCode_Forbidden}
	loginTooWeak    = verdict{"login_too_weak", typev3.StatusCode_Unauthorized}
	loginTooOld     = verdict{"login_too_old", typev3.StatusCode_Unauthorized}
	policyDenied    = verdict{"policy_denied", typev3.StatusCode_Forbidden}
	policyError     = verdict{"policy_error", typev3.StatusCode_Forbidden}
	bindingError    = verdict{"binding_error", typev3.StatusCode_Forbidden}
	passportTooBig  = verdict{"passport_too_large", typev3.StatusCode_Forbidden}
	tenantMissing   = verdict{"tenant_missing", typev3.StatusCode_Forbidden}
	tenantForbidden = verdict{"tenant_not_accepted", typev3.StatusCode_Forbidden}

	clientUnknown   = verdict{"client_not_registered", typev3.StatusCode_Forbidden}
	clientInactive  = verdict{"client_inactive", typev3.StatusCode_Forbidden}
	clientForbidden = verdict{"client_api_not_allowed", typev3.StatusCode_Forbidden}
	clientTenant    = verdict{"client_tenant_mismatch", typev3.StatusCode_Forbidden}

	callerNotAllowed = verdict{"caller_not_allowed", typev3.StatusCode_Forbidden}
	// A certificate that is not what it was when the connection was made.
	callerCertificateMissing  = verdict{"caller_certificate_missing", typev3.StatusCode_Forbidden}
	callerCertificateInvalid  = verdict{"caller_certificate_invalid", typev3.StatusCode_Forbidden}
	callerCertificateMismatch = verdict{"caller_certificate_mismatch", typev3.StatusCode_Forbidden}
	callerCertificateRevoked  = verdict{"caller_certificate_revoked", typev3.StatusCode_Forbidden}
	callerCertificateExpired  = verdict{"caller_certificate_expired", typev3.StatusCode_Forbidden}
)

// What is refused because nobody could decide.
var (
	noState           = verdict{"no_state", typev3.StatusCode_ServiceUnavailable}
	unknownPolicy     = verdict{"unknown_policy", typev3.StatusCode_ServiceUnavailable}
	unknownRoute      = verdict{"unknown_route", typev3.StatusCode_ServiceUnavailable}
	incompleteRequest = verdict{"request_incomplete", typev3.StatusCode_ServiceUnavailable}
	malformedRequest  = verdict{"request_malformed", typev3.StatusCode_ServiceUnavailable}
	noKeys            = verdict{"no_keys", typev3.StatusCode_ServiceUnavailable}
	staleKeys         = verdict{"keys_stale", typev3.StatusCode_ServiceUnavailable}
	noAccounts        = verdict{"no_accounts", typev3.StatusCode_ServiceUnavailable}
	noRevocations     = verdict{"no_revocations", typev3.StatusCode_ServiceUnavailable}
	pdpStale          = verdict{"pdp_stale", typev3.StatusCode_ServiceUnavailable}
	noTrust           = verdict{"no_trust", typev3.StatusCode_ServiceUnavailable}
	noSigningKey      = verdict{"no_signing_key", typev3.StatusCode_ServiceUnavailable}
	noIntrospection   = verdict{"introspection_unavailable", typev3.StatusCode_ServiceUnavailable}
	passwordBusy      = verdict{"password_busy", typev3.StatusCode_ServiceUnavailable}
	cancelled         = verdict{"cancelled", typev3.StatusCode_ServiceUnavailable}
	auditUnavailable  = verdict{audit.ReasonUnavailable, typev3.StatusCode_ServiceUnavailable}
	internalError     = verdict{"internal_error", typev3.StatusCode_ServiceUnavailable}
)

// unauthenticated refuses a credential that is missing or not valid.
func unauthenticated(reason string) verdict {
	return verdict{reason, typev3.StatusCode_Unauthorized}
}
