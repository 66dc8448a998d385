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
	// typ and tokenUse are the claims of Keycloak and Cognito. Keycloak's other
	// types (Refresh, Offline, Logout) are no credentials here.
	typ, tokenUse string
	// foreign are claims that only the other kind has.
	foreign []string
}

var (
	accessTokenMarks = marks{"Bearer", "access", []string{"nonce", "at_hash", "c_hash", "s_hash"}}
	idTokenMarks     = marks{"ID", "id", []string{"scope", "scp"}}
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
	case typed && typ != m.typ, used && use != m.tokenUse:
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
