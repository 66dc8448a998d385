// Package issuer is the demo's OpenID provider: it publishes its keys as any
// provider does, and mints whatever token the demo wants. It is good for
// nothing else.
package issuer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

const keyID = "demo-1"

// Issuer signs tokens with a key that is made with it and dies with it.
type Issuer struct {
	url string
	key *ecdsa.PrivateKey
}

// New makes an issuer that is known as url, which is where [Issuer.Public] must
// be reachable.
func New(url string) (*Issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the issuer's key: %w", err)
	}
	return &Issuer{url: url, key: key}, nil
}

// Public serves what everybody may see: OpenID Connect Discovery and the JWK
// Set.
func (i *Issuer) Public() (http.Handler, error) {
	key, err := jwkset.NewJWKFromKey(i.key.Public(), jwkset.JWKOptions{
		Metadata: jwkset.JWKMetadataOptions{KID: keyID, ALG: jwkset.AlgES256, USE: jwkset.UseSig},
	})
	if err != nil {
		return nil, fmt.Errorf("encode the issuer's key: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /.well-known/openid-configuration", document(map[string]any{
		"issuer":                                i.url,
		"jwks_uri":                              i.url + "/jwks",
		"response_types_supported":              []string{"code"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"ES256"},
	}))
	mux.Handle("GET /jwks", document(map[string]any{"keys": []jwkset.JWKMarshal{key.Marshal()}}))
	return mux, nil
}

func document(v any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // the client left: nobody to tell
	})
}

// Mint serves POST /mint and /mint-id, which sign any claims that they are sent:
// keep it on loopback. They replace the defaults of [Issuer.Token] and
// [Issuer.IDToken]; null removes one.
func (i *Issuer) Mint() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /mint", minted(i.Token))
	mux.HandleFunc("POST /mint-id", minted(i.IDToken))
	return mux
}

func minted(mint func(jwt.MapClaims) (string, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var claims jwt.MapClaims
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<10)).Decode(&claims); err != nil {
			http.Error(w, "claims must be a JSON object", http.StatusBadRequest)
			return
		}
		token, err := mint(claims)
		if err != nil {
			http.Error(w, "token could not be signed", http.StatusInternalServerError)
			return
		}
		_, _ = w.Write([]byte(token))
	}
}

// Token signs an access token (RFC 9068) for a salesperson, good for an hour,
// in which claims replace what they name.
func (i *Issuer) Token(claims jwt.MapClaims) (string, error) {
	now := time.Now()
	all := jwt.MapClaims{
		"iss": i.url, "aud": "shop-api", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"sub": "ada", "groups": []string{"sales"}, "tenant": "acme", "client_id": "web",
	}
	return i.sign("at+jwt", all, claims)
}

// IDToken signs the ID token (OpenID Connect Core 1.0) of the same person, who
// has just logged in.
func (i *Issuer) IDToken(claims jwt.MapClaims) (string, error) {
	now := time.Now()
	all := jwt.MapClaims{
		"iss": i.url, "aud": "web", "azp": "web", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"auth_time": now.Unix(), "sub": "ada", "tenant": "acme",
	}
	return i.sign("JWT", all, claims)
}

func (i *Issuer) sign(typ string, all, claims jwt.MapClaims) (string, error) {
	maps.Copy(all, claims)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	token := jwt.NewWithClaims(jwt.SigningMethodES256, all)
	token.Header["kid"], token.Header["typ"] = keyID, typ
	signed, err := token.SignedString(i.key)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return signed, nil
}
