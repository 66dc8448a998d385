// Package credential verifies what external clients prove themselves with:
// bearer access tokens that are JWTs (RFC 6750, 7519, 9068).
//
// A [Verifier] is made from one identity provider and the keys it is known to
// have; verifying does no I/O, ever. Whatever is wrong is a [Reason], which is
// for logs and metrics and never for the client. The package knows nothing of
// Envoy or of policy.
package credential

import "time"

// Reason says why a credential is refused. It is an error, and it is the same
// word in logs and metrics.
type Reason string

// The reasons.
const (
	// Missing says that there is no credential at all.
	Missing Reason = "credential_missing"
	// Ambiguous says that there is more than one.
	Ambiguous Reason = "credential_ambiguous"
	// Unsupported says that it is of a kind that is not accepted.
	Unsupported Reason = "credential_unsupported"
	// Malformed says that the token is no JWT, or can be read in two ways.
	Malformed Reason = "token_malformed"
	// WrongType says that it is a JWT for something else, such as an ID token.
	WrongType Reason = "token_type_mismatch"
	// Bound says that it is bound to a key (`cnf`), which cannot be proved yet.
	Bound Reason = "token_bound"
	// WrongIssuer and WrongAudience say from or for whom it is not.
	WrongIssuer   Reason = "issuer_mismatch"
	WrongAudience Reason = "audience_mismatch"
	// Expired and NotYetValid compare with the clock.
	Expired     Reason = "token_expired"
	NotYetValid Reason = "token_not_yet_valid"
	// UnknownKey says that the provider has no such key.
	UnknownKey Reason = "unknown_key"
	// WrongAlgorithm says that the key is for another algorithm.
	WrongAlgorithm Reason = "algorithm_mismatch"
	// BadSignature says that the key did not sign the token.
	BadSignature Reason = "signature_invalid"
	// BadClaim says that a claim names nobody, or in a form that is not known.
	BadClaim Reason = "claim_invalid"
)

// Error implements error.
func (r Reason) Error() string { return string(r) }

// Identity is what a verified token says. It is shared and must not be changed.
// Empty strings and nil slices mean that the token does not tell.
type Identity struct {
	// User is never empty.
	User   string
	Groups []string
	Tenant string
	// Client is the OAuth client that the token was issued to.
	Client string
	Scopes []string
	// ValidUntil is when the token stops being accepted, clock skew included.
	ValidUntil time.Time
}
