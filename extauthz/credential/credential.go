// Package credential verifies what external clients prove themselves with:
// access tokens and ID tokens that are JWTs (RFC 6750, 7519, 9068; OpenID
// Connect Core), API keys, names with passwords (RFC 7617) and certificates.
//
// [Find] says which credentials a request carries. Each kind has its verifier,
// made from documents and the keys of identity providers: [Verifier], [APIKeys],
// [Users] with [Passwords], [CertificateNames]. Verifying does no I/O, ever, and
// gives an [Identity]. Whatever is wrong is a [Reason], which is for logs and
// metrics and never for the client. The package knows nothing of Envoy or of
// policy.
//
// Names are compared byte for byte, whatever they name: users, clients, groups,
// issuers, audiences, scopes. Nothing is normalized, so nothing that differs
// becomes the same.
package credential

import (
	"strings"
	"time"
)

// Kind is a kind of credential, or a set of kinds. The zero value is none.
type Kind uint8

// The kinds.
const (
	KindAccessToken Kind = 1 << iota
	KindIDToken
	KindAPIKey
	KindBasic
	KindClientCertificate
)

var kindNames = [...]string{"access_token", "id_token", "api_key", "basic", "client_certificate"}

// Has reports whether all kinds of other are in k.
func (k Kind) Has(other Kind) bool { return k&other == other }

// Names returns the names of the kinds. It must not be changed.
func (k Kind) Names() []string { return kindSets[int(k)%len(kindSets)].names }

// String joins the names of the kinds by plus signs, as the Passport has them.
func (k Kind) String() string { return kindSets[int(k)%len(kindSets)].joined }

// kindSets has the names of each set of kinds, which every decision asks for.
var kindSets = func() (sets [1 << len(kindNames)]struct {
	names  []string
	joined string
},
) {
	for k := range sets {
		for i, name := range kindNames {
			if Kind(k).Has(1 << i) {
				sets[k].names = append(sets[k].names, name)
			}
		}
		sets[k].joined = strings.Join(sets[k].names, "+")
	}
	return sets
}()

// Reason says why a credential is refused. It is an error, and it is the same
// word in logs and metrics.
type Reason string

// Reasons of every kind.
const (
	// Missing says that there is no credential at all.
	Missing Reason = "credential_missing"
	// Ambiguous says that there is more than one of a kind, or in a place.
	Ambiguous Reason = "credential_ambiguous"
	// Unsupported says that it is of a kind, or in a place, that is not accepted.
	Unsupported Reason = "credential_unsupported"
	// Malformed says that it is not what it should be, or can be read in two
	// ways.
	Malformed Reason = "token_malformed"
	// Mismatch says that two credentials, each of them good, do not belong
	// together.
	Mismatch Reason = "credentials_mismatch"
)

// Reasons of tokens.
const (
	// WrongType says that it is a JWT for something else: an ID token where an
	// access token is wanted, or the other way round.
	WrongType Reason = "token_type_mismatch"
	// Bound says that it is bound to a key (`cnf`) that the client did not
	// prove to have.
	Bound Reason = "token_bound"
	// WrongIssuer and WrongAudience say from or for whom it is not.
	WrongIssuer   Reason = "issuer_mismatch"
	WrongAudience Reason = "audience_mismatch"
	// Expired and NotYetValid compare with the clock.
	Expired     Reason = "token_expired"
	NotYetValid Reason = "token_not_yet_valid"
	// Inactive says that its provider does not stand by it any more, or never
	// did.
	Inactive Reason = "token_inactive"
	// TooLong says that it lives longer than tokens of its provider may.
	TooLong Reason = "token_lifetime"
	// UnknownKey says that the provider has no such key.
	UnknownKey Reason = "unknown_key"
	// WrongAlgorithm says that the key is for another algorithm.
	WrongAlgorithm Reason = "algorithm_mismatch"
	// BadSignature says that the key did not sign the token.
	BadSignature Reason = "signature_invalid"
	// BadClaim says that a claim names nobody, or in a form that is not known.
	BadClaim Reason = "claim_invalid"
)

// Reasons of API keys, passwords and certificates. A client must not be able to
// tell those of one kind apart.
const (
	// BadKey says that it is no API key of ours.
	BadKey Reason = "api_key_invalid"
	// KeyExpired and KeyDisabled say that it was one.
	KeyExpired  Reason = "api_key_expired"
	KeyDisabled Reason = "api_key_disabled"
	// BadPassword says that there is no such user, or that the password is
	// another.
	BadPassword Reason = "password_invalid"
	// UserDisabled says that the password is right.
	UserDisabled Reason = "user_disabled"
	// Throttled says that there were too many wrong passwords.
	Throttled Reason = "password_throttled"
	// Busy says that too many passwords are being checked. It tells nothing of
	// the client: nobody could decide.
	Busy Reason = "password_busy"
	// BadCertificate says that it cannot be read, CertificateExpired compares it
	// with the clock, WrongName says that none of its names is asked for.
	BadCertificate     Reason = "certificate_invalid"
	CertificateExpired Reason = "certificate_expired"
	WrongName          Reason = "certificate_name_mismatch"
)

// Error implements error.
func (r Reason) Error() string { return string(r) }

// Identity is what a verified credential says. It is shared and must not be
// changed. Empty strings, nil slices and zero times mean that the credential
// does not tell.
type Identity struct {
	Kind Kind
	// Provider is the name of the document that vouches: the IdentityProvider
	// of a token, the Users of a password; empty otherwise.
	Provider string
	// User is never empty.
	User   string
	Groups []string
	Tenant string
	// Client is the OAuth client that a token was issued to, or the client that
	// an API key belongs to.
	Client string
	Scopes []string

	// Issuer, Subject and ID are `iss`, `sub` and `jti` of a token. ID is the
	// API key's own otherwise.
	Issuer, Subject, ID string
	// OtherIDs are those of what was shown beside it.
	OtherIDs []string
	// IssuedAt is `iat`. A token without one may be of any age.
	IssuedAt time.Time
	// ACR, AMR and AuthTime say how and when the user logged in (OpenID Connect
	// Core section 2), so far as they are of the types that it prescribes.
	ACR      string
	AMR      []string
	AuthTime time.Time

	// ValidUntil is when the credential stops being accepted, clock skew
	// included; zero if it does not end by itself.
	ValidUntil time.Time

	// What tells whether two tokens belong together, or a token and a
	// certificate.
	token binding
}
