// Package idptest has identity providers for tests: one in this process that
// fails on demand, and two real ones, the certified oidc-provider and Keycloak.
// All have the same users and clients, and pass one contract.
//
//	idp := idptest.NewFake(t)
//	tokens := idp.Login(t, idptest.User, idptest.JWT)
//	idp.Answer(idptest.Keys, http.NotFound)
package idptest

import (
	"testing"

	"github.com/chancery-mesh/chancery/mesh"
)

// Who is known to every provider. A client's secret is its id with "-secret".
const (
	// User has the tenant and a group.
	User   = "alice"
	Tenant = "acme"
	Group  = "sales"
	// WebClient signs users in, BatchClient is nobody's but its own, and
	// APIClient introspects.
	WebClient   = "shop-web"
	BatchClient = "shop-batch"
	APIClient   = "shop-api"
	// Audience of access tokens.
	Audience = "shop-api"
	// Scope of access tokens.
	Scope = "orders:read"
)

// Secret returns the secret of a client.
func Secret(client string) string { return client + "-secret" }

// Kind of an access token.
type Kind string

// The kinds. Not every provider has tokens of the last: what it gives instead
// says too little to be verified without introspection.
const (
	JWT    Kind = "jwt"
	Opaque Kind = "opaque"
)

// Tokens are what a login gives. ID may be empty.
type Tokens struct{ Access, ID string }

// Provider is an identity provider.
type Provider interface {
	// Document is what an operator writes of it, keys fetched every second.
	Document() *mesh.IdentityProvider
	// Login signs a user in at the WebClient.
	Login(t testing.TB, user string, kind Kind) Tokens
	// ClientToken is the BatchClient's, for itself.
	ClientToken(t testing.TB, kind Kind) string
	// Revoke ends a token of the WebClient's.
	Revoke(t testing.TB, token string)
	// Rotate signs with new keys from now on. What was signed before is good
	// no more unless keep is set.
	Rotate(t testing.TB, keep bool)
	// Hang keeps it from answering until resume is called.
	Hang(t testing.TB) (resume func())
}
