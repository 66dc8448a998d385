package trial

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
)

// issuer is an identity provider of the documents, with a key that is made up.
type issuer struct {
	*chancerypb.Provider
	key *ecdsa.PrivateKey
}

const keyID = "trial"

func newIssuer(d *mesh.IdentityProvider) (*issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	options := jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: keyID, ALG: jwkset.AlgES256, USE: jwkset.UseSig}}
	jwk, err := jwkset.NewJWKFromKey(&key.PublicKey, options)
	if err != nil {
		return nil, err
	}
	p := &issuer{translate.Provider(d), key}
	p.UsableUntil = timestamppb.New(time.Now().Add(24 * time.Hour))
	p.Jwks, err = json.Marshal(jwkset.JWKSMarshal{Keys: []jwkset.JWKMarshal{jwk.Marshal()}})
	return p, err
}

// accessToken makes one for a person, or none for nobody.
func (c *Court) accessToken(who *mesh.Person, now time.Time) (string, error) {
	if who == nil {
		return "", nil
	}
	p := c.providers[who.Provider]
	claims, err := p.claims(who, now)
	if err != nil {
		return "", err
	}
	claims["aud"] = p.GetAudiences()[0]
	if client := p.client(who); client != "" {
		claims["client_id"] = client
	}
	if len(who.Scopes) > 0 {
		claims["scope"] = strings.Join(who.Scopes, " ")
	}
	token, err := p.sign("at+jwt", claims, who)
	if err != nil || !p.GetOpaque() {
		return token, err
	}
	return c.answers.add(p, token, now)
}

func (c *Court) idToken(who *mesh.Person, now time.Time) (string, error) {
	if who == nil {
		return "", nil
	}
	p := c.providers[who.Provider]
	claims, err := p.claims(who, now)
	if err != nil {
		return "", err
	}
	claims["aud"] = p.client(who)
	claims["azp"] = p.client(who)
	return p.sign("JWT", claims, who)
}

// client is the one that a person's tokens are for.
func (p *issuer) client(who *mesh.Person) string {
	return cmp.Or(who.Client, append(p.GetIdTokenAudiences(), "")[0])
}

// lifetime of tokens; cases take no longer.
const lifetime = 5 * time.Minute

// claims are those of both kinds of tokens.
func (p *issuer) claims(who *mesh.Person, now time.Time) (jwt.MapClaims, error) {
	claims := jwt.MapClaims{
		"iss": p.GetIssuer(), "sub": who.User, "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(lifetime).Unix(),
		"auth_time": now.Add(-who.LoggedIn).Unix(),
	}
	if who.ACR != "" {
		claims["acr"] = who.ACR
	}
	if len(who.AMR) > 0 {
		claims["amr"] = who.AMR
	}
	m := p.GetClaims()
	for _, at := range []struct {
		path  string
		value any
		there bool
	}{
		{m.GetUser(), who.User, true},
		{m.GetTenant(), who.Tenant, who.Tenant != ""},
		{m.GetGroups(), who.Groups, len(who.Groups) > 0},
		{m.GetClient(), p.client(who), p.client(who) != ""},
	} {
		if !at.there {
			continue
		}
		path, err := credential.ParseClaimPath(at.path)
		if err != nil {
			return nil, err
		}
		put(claims, path, at.value)
	}
	if m.GetUser() == "email" {
		claims["email_verified"] = true
	}
	return claims, nil
}

// put sets a claim, in objects that it makes if need be.
func put(claims map[string]any, path credential.ClaimPath, value any) {
	if len(path) == 0 {
		return
	}
	for _, name := range path[:len(path)-1] {
		inner, ok := claims[name].(map[string]any)
		if !ok {
			inner = map[string]any{}
			claims[name] = inner
		}
		claims = inner
	}
	claims[path[len(path)-1]] = value
}

func (p *issuer) sign(typ string, claims jwt.MapClaims, who *mesh.Person) (string, error) {
	maps.Copy(claims, who.Claims)
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	token.Header["kid"], token.Header["typ"] = keyID, typ
	return token.SignedString(p.key)
}

// answers are what identity providers say of opaque tokens.
type answers map[string]answer

type answer struct {
	*credential.Identity
	err error
}

// add returns an opaque token, of which the provider says what a JWT does.
func (a answers) add(p *issuer, token string, now time.Time) (string, error) {
	v, err := credential.NewVerifier(p.Provider)
	if err != nil {
		return "", err
	}
	id, err := v.Verify(token, now, nil)
	opaque := rand.Text()
	a[opaque] = answer{id, err}
	return opaque, nil
}

// Introspect implements extauthz.Introspector. A provider finds nothing wrong
// with the JWTs of a trial.
func (a answers) Introspect(_ context.Context, p *chancerypb.Provider, token, _ string, now time.Time) (*credential.Identity, error) {
	if known, ok := a[token]; ok {
		return known.Identity, known.err
	}
	v, err := credential.NewVerifier(p)
	if err != nil {
		return nil, fmt.Errorf("provider %q: %w", p.GetName(), err)
	}
	return v.Verify(token, now, nil)
}
