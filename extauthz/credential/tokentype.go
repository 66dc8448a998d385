package credential

import (
	"strings"

	"github.com/chancery-mesh/chancery/internal/jose"
)

// checkType tells the JWTs apart that a provider signs with the same keys, by
// rules that exclude each other (RFC 8725 sections 3.11 and 3.12).
func checkType(t *jose.Token, kind Kind) error {
	typ, _, err := t.Header.String("typ")
	if err != nil {
		return Malformed
	}
	// A logout token or another security event (RFC 8417) is a message.
	if _, present := t.Claims["events"]; present {
		return WrongType
	}
	switch strings.TrimPrefix(strings.ToLower(typ), "application/") {
	case "at+jwt":
		if kind != KindAccessToken {
			return WrongType
		}
		return nil
	case "jwt", "":
		return checkUntyped(t.Claims, kind)
	}
	return WrongType
}

// marks tell the kinds apart where the header does not.
type marks struct {
	// typ is the claim of Keycloak, whose other types (Refresh, Offline, Logout)
	// are no credentials here; tokenUse those of Cognito and Hydra.
	typ      string
	tokenUse [2]string
	// foreign are claims that only the other kind has.
	foreign []string
}

var (
	accessTokenMarks = marks{"Bearer", [2]string{"access", "access_token"}, []string{"nonce", "at_hash", "c_hash", "s_hash"}}
	idTokenMarks     = marks{"ID", [2]string{"id", "id_token"}, []string{"scope", "scp"}}
)

// checkUntyped goes by the claims.
func checkUntyped(claims jose.Object, kind Kind) error {
	m := &accessTokenMarks
	if kind == KindIDToken {
		m = &idTokenMarks
	}
	typ, typed := claims["typ"]
	use, used := claims["token_use"]
	switch {
	case typed && typ != m.typ, used && use != m.tokenUse[0] && use != m.tokenUse[1]:
		return WrongType
	case typed || used:
		return nil
	}
	for _, name := range m.foreign {
		if _, present := claims[name]; present {
			return WrongType
		}
	}
	return nil
}
