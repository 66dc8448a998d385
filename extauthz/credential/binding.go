package credential

import (
	"crypto"
	"crypto/sha256"
	_ "crypto/sha512" // for hashes
	"encoding/base64"
	"slices"

	"github.com/chancery-mesh/chancery/internal/jose"
)

// binding is what ties a token to another credential.
type binding struct {
	// client is the OAuth client that the token says it was issued to, whatever
	// claim the identity's is read from.
	client string
	// hash is `at_hash`, by a hash function; ID tokens only, empty if absent.
	hash     string
	function crypto.Hash
	// certificate is the SHA-256 of the one that the token is bound to, if bound
	// says so.
	certificate [sha256.Size]byte
	bound       bool
}

// hashes of `at_hash`, by the algorithm of the ID token (OpenID Connect Core
// section 3.1.3.6). EdDSA is Ed25519, which has SHA-512 inside.
var hashes = map[string]crypto.Hash{
	"RS256": crypto.SHA256, "PS256": crypto.SHA256, "ES256": crypto.SHA256,
	"RS384": crypto.SHA384, "PS384": crypto.SHA384, "ES384": crypto.SHA384,
	"RS512": crypto.SHA512, "PS512": crypto.SHA512, "ES512": crypto.SHA512, "EdDSA": crypto.SHA512,
}

// bindIDToken reads what an ID token says of the access token that it came with.
func (id *Identity) bindIDToken(t *jose.Token) error {
	hash, present, err := t.Claims.String("at_hash")
	if err != nil || present && hash == "" {
		return BadClaim
	}
	id.token.hash, id.token.function = hash, hashes[t.Algorithm()]
	id.token.client = authorizedParty(t.Claims)
	return nil
}

// confirm reads `cnf`. Only certificates can be shown (RFC 8705 section 3.1): a
// token that is bound to anything else, or to more, is refused.
func (id *Identity) confirm(claims jose.Object) error {
	cnf, bound := claims["cnf"]
	if !bound {
		return nil
	}
	members, _ := cnf.(jose.Object)
	thumbprint, _, err := members.String("x5t#S256")
	if err != nil || len(members) != 1 {
		return Bound
	}
	digest, err := jose.Decode(thumbprint)
	if err != nil || len(digest) != sha256.Size {
		return Bound
	}
	id.token.certificate, id.token.bound = [sha256.Size]byte(digest), true
	return nil
}

// ShownBy returns id if peer, the certificate of the connection or nil, may show
// its token. Verifiers ask themselves; whoever keeps an identity asks each time.
func (id *Identity) ShownBy(peer *Certificate) (*Identity, error) {
	if id.token.bound && (peer == nil || peer.thumbprint != id.token.certificate) {
		return nil, Bound
	}
	return id, nil
}

// Match reports whether two tokens, both verified, belong together: of one
// issuer, about one user, for one client, and, where the ID token says which
// access token it came with, that one. If not, the error is [Mismatch].
func Match(access, id *Identity, accessToken string) error {
	switch {
	case access.Kind != KindAccessToken || id.Kind != KindIDToken,
		access.Issuer != id.Issuer,
		access.Subject != id.Subject || id.Subject == "",
		access.User != id.User || access.Tenant != id.Tenant && access.Tenant != "" && id.Tenant != "",
		access.token.client != id.token.client || id.token.client == "",
		id.token.hash != "" && id.token.hash != id.token.hashOf(accessToken):
		return Mismatch
	}
	return nil
}

// hashOf is what `at_hash` must be.
func (b *binding) hashOf(accessToken string) string {
	h := b.function.New()
	h.Write([]byte(accessToken))
	sum := h.Sum(nil)
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}

// isForClient reports whether an ID token is for clients of ours and no others,
// and was issued to one of them (OpenID Connect Core section 3.1.3.7, numbers 3
// to 5).
func (v *Verifier) isForClient(claims jose.Object) bool {
	audiences := []any{claims["aud"]}
	if list, ok := claims["aud"].([]any); ok {
		audiences = list
	}
	for _, a := range audiences {
		if s, ok := a.(string); !ok || !slices.Contains(v.audiences, s) {
			return false
		}
	}
	party, present, err := claims.String("azp")
	switch {
	case err != nil || len(audiences) == 0:
		return false
	case present:
		return slices.Contains(v.audiences, party)
	}
	return len(audiences) == 1
}

// authorizedParty returns the client that an ID token was issued to, once
// isForClient holds.
func authorizedParty(claims jose.Object) string {
	if party, present, _ := claims.String("azp"); present {
		return party
	}
	if list, ok := claims["aud"].([]any); ok {
		return list[0].(string)
	}
	party, _, _ := claims.String("aud")
	return party
}
