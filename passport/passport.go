// Package passport mints, verifies and propagates Passports: the signed,
// short-lived statements that tell the services of a mesh for whom a request
// is made.
//
// A Passport is a Transaction Token (draft-ietf-oauth-transaction-tokens), a
// JWS in the header Txn-Token. Gateways mint one for each request; services
// read it, and hand it on with the calls that they make for the same request.
// A service written in Go needs two lines:
//
//	keys, err := passport.OpenFile("/run/chancery/passport-keys.json")
//	verifier, err := passport.NewVerifier(passport.VerifierConfig{TrustDomain: "shop.example", Keys: keys})
//
//	http.ListenAndServe("127.0.0.1:8080", passport.Middleware(verifier)(handler))
//	client := &http.Client{Transport: &passport.Transport{}}
//
// In handler, [FromContext] says who asks, and requests that client makes with
// that context carry the Passport and the request's id. Package grpcpassport
// does the same for gRPC.
//
// Verifying does no I/O and trusts nothing but the keys it was given: what a
// Passport says about its own key is compared, never used. Everything here is
// safe for concurrent use.
package passport

import (
	"log/slog"
	"time"
)

// Header is the HTTP header, and in lower case the gRPC metadata key, that
// carries a Passport.
const Header = "Txn-Token"

// RequestIDHeader carries the id of the call chain, [Passport.ID].
const RequestIDHeader = "X-Request-Id"

// Type is the `typ` of every Passport.
const Type = "txntoken+jwt"

// MaxSize bounds an encoded Passport, in bytes.
const MaxSize = 8 << 10

// Passport says for whom a request is made. Empty strings and nil slices mean
// that nothing is known.
type Passport struct {
	// ID names the call chain (`txn`): the same in every service it reaches.
	ID string
	// Subject is the user (`sub`).
	Subject string
	// Scopes that the user's client was granted (`scope`).
	Scopes []string
	// Audience is the trust domain that the Passport is good in (`aud`).
	Audience string
	// Gateway is the SPIFFE ID of the gateway that minted it (`req_wl`).
	Gateway   string
	IssuedAt  time.Time
	ExpiresAt time.Time

	// Provider is the name of the identity provider that vouched for the user
	// (`idp` in `tctx`).
	Provider string
	// Tenant, Groups and Client of the user (`tctx`). Groups is nil where the
	// identity provider told nothing, empty where the user is in none.
	Tenant string
	Groups []string
	Client string

	// Bound are facts of the call, which the gateway's route chose (`bound` in
	// `tctx`): a Passport for one order opens no other. Nil where there are none.
	Bound map[string]string

	// ClientIP is the address that the request came from, and Authn the kinds
	// of credentials that it carried, joined by plus signs (`rctx`).
	ClientIP string
	Authn    string
	// ACR, AMR and AuthTime say how strong and how old the user's login is, as
	// OpenID Connect Core section 2 has them (`rctx`).
	ACR      string
	AMR      []string
	AuthTime time.Time
	// CredentialIDs are of the credentials that the Passport was minted for
	// (`cred_jti` in `rctx`), CredentialSubject is their `sub` where Subject is
	// another claim (`cred_sub`), and CredentialIssuedAt is when the oldest was
	// issued (`cred_iat`). By these it is revoked with them.
	CredentialIDs      []string
	CredentialSubject  string
	CredentialIssuedAt time.Time

	token string
}

// Token returns the encoded form that the Passport was verified from, empty
// for one that was not. It is a secret for as long as it is valid.
func (p *Passport) Token() string { return p.token }

// String names the Passport without giving it away.
func (p Passport) String() string { return "passport " + p.ID }

// LogValue implements [slog.LogValuer].
func (p Passport) LogValue() slog.Value {
	return slog.GroupValue(slog.String("request_id", p.ID), slog.String("sub", p.Subject),
		slog.String("gateway", p.Gateway))
}
