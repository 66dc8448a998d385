package attacks_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The attacks on credentials are many, and what they are refused for is tested
// beside what refuses them. Here one of each kind goes all the way, through Envoy to
// nobody.
func TestBadCredentials(t *testing.T) {
	t.Parallel()
	e := start(t, "plain")
	good := e.token()
	e.attack("control", raw{target: "/svc-a/x", token: good}, safe{allowed: true, user: "alice"})
	e.attack("control", raw{target: "/key/x", headers: []string{"X-Api-Key: " + e.apiKey}}, safe{allowed: true, user: "robot"})
	part := strings.Split(good, ".")
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&e.idp.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	claims := string(decode(t, part[1]))
	header := func(more string) string { return `{"alg":"ES256","typ":"at+jwt","kid":"k1"` + more + `}` }
	by := func(header, claims string) string { return e.signed(jwt.SigningMethodES256, e.idp, header, claims) }
	for name, token := range map[string]string{
		"J01 no algorithm":            encode(`{"alg":"none","typ":"at+jwt","kid":"k1"}`) + "." + part[1] + ".",
		"J01 and the signature":       encode(`{"alg":"none","typ":"at+jwt","kid":"k1"}`) + "." + part[1] + "." + part[2],
		"J02 key as a secret":         e.signed(jwt.SigningMethodHS256, public, `{"alg":"HS256","typ":"at+jwt","kid":"k1"}`, claims),
		"J03 other algorithm":         by(`{"alg":"ES384","typ":"at+jwt","kid":"k1"}`, claims),
		"J07 unknown key":             by(`{"alg":"ES256","typ":"at+jwt","kid":"../k1"}`, claims),
		"J15 crit":                    by(header(`,"crit":["exp"]`), claims),
		"J18 a claim twice":           by(header(""), strings.Replace(claims, "{", `{"sub":"root",`, 1)),
		"J22 padding":                 good + "==",
		"J24 bad signature":           e.signed(jwt.SigningMethodES256, other, header(""), claims),
		"J24 of another token":        strings.Join([]string{part[0], encode(strings.Replace(claims, "alice", "root", 1)), part[2]}, "."),
		"J26 two segments":            part[0] + "." + part[1],
		"C01 expired":                 e.token("exp", time.Now().Add(-time.Hour).Unix(), "iat", time.Now().Add(-2*time.Hour).Unix()),
		"C01 endless":                 e.token("exp", nil),
		"C02 not yet":                 e.token("nbf", time.Now().Add(time.Hour).Unix()),
		"C04 wrong issuer":            e.token("iss", "https://idp1.test/"),
		"C05 wrong audience":          e.token("aud", "svc-b"),
		"C07 ID token":                e.token("typ", "JWT", "aud", "web", "nonce", "n"),
		"C12 nobody":                  e.token("sub", ""),
		"C18 bound elsewhere":         e.token("cnf", map[string]any{"x5t#S256": strings.Repeat("A", 43)}),
		"K12 a byte less":             good[:len(good)-1],
		"K12 a byte more":             good + "A",
		"R11 revoked though it lives": e.token("jti", revokedID),
	} {
		e.attack(name, raw{target: "/svc-a/x", token: token}, refusedWith(401))
		if !strings.Contains(e.lastRecord(), `"deny"`) {
			t.Errorf("%s: the record is %s", name, e.lastRecord())
		}
	}
	for name, tenant := range map[string]any{"another": "globex", "none": nil} {
		e.attack("C17 "+name, raw{target: "/svc-a/x", token: e.token("tenant", tenant)}, refusedWith(403))
	}
	for name, header := range map[string]string{
		"B03 empty":          "Authorization: Basic Og==",
		"B04 in capitals":    "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("Alice:"+e.password)),
		"B05 no such user":   "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("nobody:"+e.password)),
		"B05 wrong password": "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("alice:"+e.password+" ")),
	} {
		e.attack(name, raw{target: "/basic/x", headers: []string{header}}, refusedWith(401))
	}
	for name, r := range map[string]raw{
		"B07 in the query": {target: "/key/x?x-api-key=" + e.apiKey}, "B07 the prefix": {headers: []string{"X-Api-Key: " + e.apiKey[:14]}},
		"B07 in capitals": {headers: []string{"X-Api-Key: " + strings.ToUpper(e.apiKey)}},
		"B07 twice":       {headers: []string{"X-Api-Key: " + e.apiKey, "X-Api-Key: " + e.apiKey}},
	} {
		if r.target == "" {
			r.target = "/key/x"
		}
		e.attack(name, r, refusedWith(401))
	}
}

func encode(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func decode(t *testing.T, text string) []byte {
	t.Helper()
	decoded, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return decoded
}

// signed signs whatever it is given.
func (e *edge) signed(method jwt.SigningMethod, key any, header, claims string) string {
	e.t.Helper()
	text := encode(header) + "." + encode(claims)
	signature, err := method.Sign(text, key)
	if err != nil {
		e.t.Fatal(err)
	}
	signed := base64.RawURLEncoding.EncodeToString(signature)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.secrets = append(e.secrets, signed)
	return text + "." + signed
}
