package credential_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

var now = time.Unix(1_800_000_000, 0)

// keys of the provider, made once: RSA keys take a while.
var keys = sync.OnceValue(func() map[string]crypto.Signer {
	r, _ := rsa.GenerateKey(rand.Reader, 2048)
	p, _ := rsa.GenerateKey(rand.Reader, 2048)
	e, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	e384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	e512, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, d, _ := ed25519.GenerateKey(rand.Reader)
	return map[string]crypto.Signer{
		"RS256": r, "RS384": r, "RS512": r, "PS256": p, "PS384": p, "PS512": p, "ES256": e, "ES384": e384, "ES512": e512, "EdDSA": d,
	}
})

func jwk(t testing.TB, public crypto.PublicKey, kid, alg string) json.RawMessage {
	t.Helper()
	k, err := jwkset.NewJWKFromKey(public, jwkset.JWKOptions{
		Metadata: jwkset.JWKMetadataOptions{KID: kid, ALG: jwkset.ALG(alg), USE: jwkset.UseSig},
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(k.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func jwks(t testing.TB, keys ...json.RawMessage) []byte {
	t.Helper()
	data, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// provider has one key for each algorithm, whose kid is the algorithm.
func provider(t testing.TB) *chancerypb.Provider {
	t.Helper()
	var set []json.RawMessage
	for alg, key := range keys() {
		set = append(set, jwk(t, key.Public(), alg, alg))
	}
	return &chancerypb.Provider{
		Name: "staff", Issuer: "https://idp.test/", Audiences: []string{"shop-api", "shop-web"},
		Claims:    &chancerypb.ClaimMapping{Tenant: "tenant"},
		ClockSkew: durationpb.New(10 * time.Second),
		Jwks:      jwks(t, set...),
	}
}

func verifier(t testing.TB, p *chancerypb.Provider) *credential.Verifier {
	t.Helper()
	v, err := credential.NewVerifier(p)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// token is what the tests change before they sign it.
type token struct {
	header    map[string]any
	claims    map[string]any
	algorithm string
	key       crypto.Signer
}

func newToken() *token {
	return &token{
		header: map[string]any{"typ": "at+jwt", "kid": "ES256"},
		claims: map[string]any{
			"iss": "https://idp.test/", "aud": "shop-api", "sub": "alice",
			"iat": now.Unix(), "exp": now.Unix() + 300,
		},
		algorithm: "ES256", key: keys()["ES256"],
	}
}

func (k *token) sign(t testing.TB) string {
	t.Helper()
	unsigned := jwt.NewWithClaims(jwt.GetSigningMethod(k.algorithm), jwt.MapClaims(k.claims))
	for name, v := range k.header {
		if unsigned.Header[name] = v; v == nil {
			delete(unsigned.Header, name)
		}
	}
	signed, err := unsigned.SignedString(k.key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// alter returns a token with the claims or, with a name such as
// "header.typ", the header members that pairs name; nil removes one.
func alter(t testing.TB, pairs ...any) string {
	t.Helper()
	k := newToken()
	for i := 0; i < len(pairs); i += 2 {
		name, _ := pairs[i].(string)
		members := k.claims
		if header, ok := strings.CutPrefix(name, "header."); ok {
			name, members = header, k.header
		}
		members[name] = pairs[i+1]
		if _, header := k.header[name]; pairs[i+1] == nil && !header {
			delete(members, name)
		}
	}
	return k.sign(t)
}

// accessToken completes what the access tokens of alter say.
func accessToken(id credential.Identity) *credential.Identity {
	id.Kind, id.Provider, id.Issuer = credential.KindAccessToken, "staff", "https://idp.test/"
	id.Subject, id.IssuedAt = "alice", now
	return &id
}

var unbound = cmpopts.IgnoreUnexported(credential.Identity{})

func TestVerifyAccepts(t *testing.T) {
	t.Parallel()
	v := verifier(t, provider(t))
	until := now.Add(310 * time.Second)
	alice := accessToken(credential.Identity{User: "alice", ValidUntil: until})
	for name, row := range map[string]struct {
		token string
		want  *credential.Identity
	}{
		"least":                  {alter(t), alice},
		"untyped":                {alter(t, "header.typ", nil), alice},
		"typ JWT":                {alter(t, "header.typ", "JWT"), alice},
		"typ in capitals":        {alter(t, "header.typ", "AT+JWT"), alice},
		"typ as media type":      {alter(t, "header.typ", "application/at+jwt"), alice},
		"nonce in at+jwt":        {alter(t, "nonce", "n"), alice},
		"second audience":        {alter(t, "aud", []string{"other", "shop-web"}), alice},
		"x5c and x5t are unread": {alter(t, "header.x5c", []string{"A"}, "header.x5t", "A"), alice},
		"C01 fraction of a second": {
			alter(t, "exp", 1_800_000_099.5),
			accessToken(credential.Identity{User: "alice", ValidUntil: now.Add(109*time.Second + 5e8)}),
		},
		"everything": {
			alter(t, "groups", []string{"sales", "Domain Users"}, "tenant", "acme", "client_id", "web", "azp", "other",
				"scope", "read write"),
			accessToken(credential.Identity{
				User: "alice", Groups: []string{"sales", "Domain Users"}, Tenant: "acme", Client: "web",
				Scopes: []string{"read", "write"}, ValidUntil: until,
			}),
		},
		"lists the other way": {
			alter(t, "groups", "sales ops", "azp", "web", "scope", []string{"read"}),
			accessToken(credential.Identity{
				User: "alice", Groups: []string{"sales", "ops"}, Client: "web", Scopes: []string{"read"}, ValidUntil: until,
			}),
		},
		"empty lists": {
			alter(t, "groups", []string{}, "scope", ""),
			accessToken(credential.Identity{User: "alice", Groups: []string{}, Scopes: []string{}, ValidUntil: until}),
		},
		"C05 client of Cognito": {
			alter(t, "header.typ", nil, "aud", nil, "token_use", "access", "client_id", "shop-api"),
			accessToken(credential.Identity{User: "alice", Client: "shop-api", ValidUntil: until}),
		},
		"J18 claims in other case are others": {alter(t, "Sub", "admin", "SCOPE", "admin", "ISS", "evil"), alice},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := v.Verify(row.token, now, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, got, unbound); diff != "" {
				t.Errorf("identity differs (-want +got):\n%s", diff)
			}
		})
	}
	for alg, key := range keys() {
		k := newToken()
		k.algorithm, k.key, k.header["kid"] = alg, key, alg
		if _, err := v.Verify(k.sign(t), now, nil); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	v := verifier(t, provider(t))
	good := alter(t)
	forged := newToken()
	forged.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	noneAlg := alter(t, "header.alg", "none")
	hmacToken := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(newToken().claims))
	hmacToken.Header["kid"] = "ES256"
	confused, err := hmacToken.SignedString([]byte(jwk(t, keys()["ES256"].Public(), "ES256", "ES256")))
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		token string
		want  credential.Reason
	}{
		"empty":                        {"", credential.Malformed},
		"opaque":                       {"2YotnFZFEjr1zCsicMWpAA", credential.Malformed},
		"J28 too long":                 {good + strings.Repeat("A", credential.MaxTokenSize), credential.Malformed},
		"J22 line feed":                {good + "\n", credential.Malformed},
		"J22 padding":                  {good + "=", credential.Malformed},
		"J15 critical extension":       {alter(t, "header.crit", []string{"exp"}), credential.Malformed},
		"J04 own key":                  {alter(t, "header.jwk", map[string]any{"kty": "EC"}), credential.Malformed},
		"J05 own key set":              {alter(t, "header.jku", "https://evil.test/"), credential.Malformed},
		"J07 kid a number":             {alter(t, "header.kid", 123), credential.Malformed},
		"J07 kid a list":               {alter(t, "header.kid", []string{"ES256"}), credential.Malformed},
		"J07 kid a path":               {alter(t, "header.kid", "../../dev/null"), credential.UnknownKey},
		"J07 kid empty":                {alter(t, "header.kid", ""), credential.UnknownKey},
		"J01 alg none":                 {noneAlg, credential.WrongAlgorithm},
		"J03 alg of another key":       {alter(t, "header.alg", "EdDSA"), credential.WrongAlgorithm},
		"J03 alg of the same family":   {alter(t, "header.alg", "ES384"), credential.WrongAlgorithm},
		"J02 public key as a secret":   {confused, credential.WrongAlgorithm},
		"J04 signed by somebody else":  {forged.sign(t), credential.BadSignature},
		"J03 kid of another key":       {alter(t, "header.kid", "RS256"), credential.WrongAlgorithm},
		"C10 typ of a logout token":    {alter(t, "header.typ", "logout+jwt"), credential.WrongType},
		"C09 typ of a passport":        {alter(t, "header.typ", "txntoken+jwt"), credential.WrongType},
		"C10 typ a number":             {alter(t, "header.typ", 1), credential.Malformed},
		"C07 ID token with nonce":      {alter(t, "header.typ", "JWT", "nonce", "n"), credential.WrongType},
		"C07 ID token with at_hash":    {alter(t, "header.typ", nil, "at_hash", "h"), credential.WrongType},
		"C18 bound to a certificate":   {alter(t, "cnf", map[string]any{"x5t#S256": "A"}), credential.Bound},
		"C18 bound to nothing":         {alter(t, "cnf", 0), credential.Bound},
		"C04 issuer without slash":     {alter(t, "iss", "https://idp.test"), credential.WrongIssuer},
		"C04 issuer in capitals":       {alter(t, "iss", "https://IDP.test/"), credential.WrongIssuer},
		"C04 issuer with port":         {alter(t, "iss", "https://idp.test:443/"), credential.WrongIssuer},
		"C04 issuer a list":            {alter(t, "iss", []string{"https://idp.test/"}), credential.WrongIssuer},
		"C04 no issuer":                {alter(t, "iss", nil), credential.WrongIssuer},
		"C05 other audience":           {alter(t, "aud", "svc-b"), credential.WrongAudience},
		"C05 audience in capitals":     {alter(t, "aud", "SHOP-API"), credential.WrongAudience},
		"C05 audience empty":           {alter(t, "aud", ""), credential.WrongAudience},
		"C05 audience empty list":      {alter(t, "aud", []string{}), credential.WrongAudience},
		"C05 audience list of empty":   {alter(t, "aud", []string{""}), credential.WrongAudience},
		"C05 audience an object":       {alter(t, "aud", map[string]any{"0": "shop-api"}), credential.WrongAudience},
		"C05 audience a prefix":        {alter(t, "aud", "shop-api2"), credential.WrongAudience},
		"C05 no audience":              {alter(t, "aud", nil), credential.WrongAudience},
		"C05 other client of Cognito":  {alter(t, "aud", nil, "token_use", "access", "client_id", "web"), credential.WrongAudience},
		"C05 no client of Cognito":     {alter(t, "aud", nil, "token_use", "access"), credential.WrongAudience},
		"C05 clients of Cognito":       {alter(t, "aud", nil, "token_use", "access", "client_id", []string{"shop-api"}), credential.WrongAudience},
		"C05 other audience of ours":   {alter(t, "aud", "other", "token_use", "access", "client_id", "shop-api"), credential.WrongAudience},
		"C05 null audience of ours":    {rawToken(t, goodHeader, strings.Replace(goodClaims, `"aud":`, `"token_use":"access","client_id":"shop-api","aud":null,"x":`, 1)), credential.WrongAudience},
		"C05 client without a use":     {alter(t, "aud", nil, "client_id", "shop-api"), credential.WrongAudience},
		"C05 client of another use":    {alter(t, "aud", nil, "token_use", "access_token", "client_id", "shop-api"), credential.WrongAudience},
		"C01 no exp":                   {alter(t, "exp", nil), credential.Malformed},
		"C01 exp a string":             {alter(t, "exp", "9999999999"), credential.Malformed},
		"C01 exp beyond all":           {alter(t, "exp", 1e300), credential.Malformed},
		"C01 exp negative":             {alter(t, "exp", -1), credential.Malformed},
		"C01 exp true":                 {alter(t, "exp", true), credential.Malformed},
		"C01 expired":                  {alter(t, "exp", now.Unix()-11), credential.Expired},
		"C02 not before":               {alter(t, "nbf", now.Unix()+11), credential.NotYetValid},
		"C02 nbf a string":             {alter(t, "nbf", "0"), credential.Malformed},
		"C02 issued in the future":     {alter(t, "iat", now.Unix()+3600), credential.NotYetValid},
		"C12 no user":                  {alter(t, "sub", nil), credential.BadClaim},
		"C12 user empty":               {alter(t, "sub", ""), credential.BadClaim},
		"C12 user a number":            {alter(t, "sub", 7), credential.BadClaim},
		"C12 user with NUL":            {alter(t, "sub", "a\x00"), credential.BadClaim},
		"C12 user with newline":        {alter(t, "sub", "a\nb"), credential.BadClaim},
		"C12 user right to left":       {alter(t, "sub", "a\u202eb"), credential.BadClaim},
		"C12 user with space around":   {alter(t, "sub", " alice"), credential.BadClaim},
		"C12 user of 10 KiB":           {alter(t, "sub", strings.Repeat("a", 10<<10)), credential.BadClaim},
		"tenant a list":                {alter(t, "tenant", []string{"acme"}), credential.BadClaim},
		"C15 tenant with line break":   {alter(t, "tenant", "a\r\nX-Role: admin"), credential.BadClaim},
		"C15 client an object":         {alter(t, "client_id", map[string]any{}), credential.BadClaim},
		"groups with a number":         {alter(t, "groups", []any{"sales", 1}), credential.BadClaim},
		"C15 groups an object":         {alter(t, "groups", map[string]any{"sales": true}), credential.BadClaim},
		"groups with two spaces":       {alter(t, "groups", "sales  ops"), credential.BadClaim},
		"C14 scope with a tab":         {alter(t, "scope", "read\tadmin"), credential.BadClaim},
		"C14 scope with two spaces":    {alter(t, "scope", "read  admin"), credential.BadClaim},
		"C14 scope with space in list": {alter(t, "scope", []string{"read admin"}), credential.BadClaim},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id, err := v.Verify(row.token, now, nil)
			if !errors.Is(err, row.want) || id != nil {
				t.Errorf("Verify = %v, %v, want %v", id, err, row.want)
			}
		})
	}
}

func TestVerifyAtTheEdges(t *testing.T) {
	t.Parallel()
	for _, skew := range []int64{0, 10} {
		p := provider(t)
		p.ClockSkew = durationpb.New(time.Duration(skew) * time.Second)
		v := verifier(t, p)
		for name, row := range map[string]struct {
			token string
			want  error
		}{
			"C03 exp at the edge": {alter(t, "exp", now.Unix()-skew), nil},
			"C03 exp beyond it":   {alter(t, "exp", now.Unix()-skew-1), credential.Expired},
			"C03 nbf at the edge": {alter(t, "nbf", now.Unix()+skew), nil},
			"C03 nbf beyond it":   {alter(t, "nbf", now.Unix()+skew+1), credential.NotYetValid},
		} {
			if _, err := v.Verify(row.token, now, nil); !errors.Is(err, row.want) {
				t.Errorf("skew %d, %s: %v, want %v", skew, name, err, row.want)
			}
		}
	}
}

// Attack row C02: what would outlive its revocation is refused.
func TestTokenLifetime(t *testing.T) {
	t.Parallel()
	p := provider(t)
	p.IdTokenAudiences, p.MaxTokenLifetime = []string{"web"}, durationpb.New(time.Hour)
	v := verifier(t, p)
	ids, err := credential.NewIDTokenVerifier(p, []string{"web"})
	if err != nil {
		t.Fatal(err)
	}
	opaque, err := credential.NewIntrospection(p)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		pairs []any
		want  credential.Reason
	}{
		"C02 an hour":                  {[]any{"iat", now.Unix() - 10, "exp", now.Unix() + 3590}, "accepted"},
		"C02 a second more":            {[]any{"iat", now.Unix() - 10, "exp", now.Unix() + 3591}, credential.TooLong},
		"C02 ten years":                {[]any{"exp", now.Unix() + 10*365*86400}, credential.TooLong},
		"C02 to the end of days":       {[]any{"exp", int64(1) << 50}, credential.Malformed},
		"C02 issued when time began":   {[]any{"iat", 0}, credential.TooLong},
		"C02 issued ahead, an hour":    {[]any{"iat", now.Unix() + 10, "exp", now.Unix() + 3610}, "accepted"},
		"C02 no iat, an hour and skew": {[]any{"iat", nil, "exp", now.Unix() + 3610}, "accepted"},
		"C02 no iat, a second more":    {[]any{"iat", nil, "exp", now.Unix() + 3611}, credential.TooLong},
		"C02 nbf does not count":       {[]any{"iat", now.Unix() - 3600, "nbf", now.Unix(), "exp", now.Unix() + 60}, credential.TooLong},
	} {
		if _, err := v.Verify(alter(t, row.pairs...), now, nil); reason(err) != row.want {
			t.Errorf("%s: %v, want %v", name, err, row.want)
		}
	}
	if _, err := ids.Verify(idToken(t, "exp", now.Unix()+3601), now, nil); reason(err) != credential.TooLong {
		t.Errorf("ID token: %v", err)
	}
	answer := `{"active":true,"token_type":"Bearer","aud":"shop-api","sub":"alice","iat":1800000000,"exp":1800003601}`
	if _, err := opaque.Identity([]byte(answer), now); reason(err) != credential.TooLong {
		t.Errorf("opaque: %v", err)
	}
}

func TestClaimMapping(t *testing.T) {
	t.Parallel()
	p := provider(t)
	p.Claims = &chancerypb.ClaimMapping{User: "login", Groups: "https://x/roles", Tenant: "a.b", Client: "app"}
	got, err := verifier(t, p).Verify(alter(t, "login", "alice@test", "https://x/roles", []string{"r"}, "a.b", "flat",
		"a", map[string]any{"b": "nested"}, "app", "web", "client_id", "other", "groups", []string{"g"}), now, nil)
	want := accessToken(credential.Identity{
		User: "alice@test", Groups: []string{"r"}, Tenant: "flat", Client: "web", ValidUntil: now.Add(310 * time.Second),
	})
	if diff := cmp.Diff(want, got, unbound); err != nil || diff != "" {
		t.Errorf("%v: %s", err, diff)
	}

	p.Claims = nil
	got, err = verifier(t, p).Verify(alter(t, "", "nobody"), now, nil)
	if err != nil || got.Tenant != "" {
		t.Errorf("without a tenant claim: %+v, %v", got, err)
	}
}

func TestKeyWithoutID(t *testing.T) {
	t.Parallel()
	e := keys()["ES256"].Public()
	other, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	for name, row := range map[string]struct {
		jwks []byte
		want error
	}{
		"one key":                       {jwks(t, jwk(t, e, "", "ES256")), nil},
		"one key of the algorithm":      {jwks(t, jwk(t, e, "a", ""), jwk(t, keys()["RS256"].Public(), "b", "")), nil},
		"two keys of the algorithm":     {jwks(t, jwk(t, e, "a", ""), jwk(t, other.Public(), "b", "")), credential.UnknownKey},
		"no key of the algorithm":       {jwks(t, jwk(t, keys()["RS256"].Public(), "b", "")), credential.UnknownKey},
		"same kid twice beside another": {jwks(t, jwk(t, e, "a", ""), jwk(t, other.Public(), "a", ""), jwk(t, keys()["EdDSA"].Public(), "b", "")), credential.UnknownKey},
	} {
		p := provider(t)
		p.Jwks = row.jwks
		if _, err := verifier(t, p).Verify(alter(t, "header.kid", nil), now, nil); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", name, err, row.want)
		}
	}
}

func TestParseKeySet(t *testing.T) {
	t.Parallel()
	good := string(jwk(t, keys()["ES256"].Public(), "good", "ES256"))
	weak, _ := rsa.GenerateKey(rand.Reader, 1024)
	for name, bad := range map[string]string{
		"symmetric":     `{"kty":"oct","k":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"}`,
		"empty secret":  `{"kty":"oct","k":""}`,
		"encryption":    strings.Replace(good, `"sig"`, `"enc"`, 1),
		"private":       strings.Replace(good, `"kid"`, `"d":"AQAB","kid"`, 1),
		"wrong curve":   strings.Replace(good, "P-256", "P-384", 1),
		"unknown kty":   `{"kty":"AKP"}`,
		"duplicate kid": good,
		"weak RSA":      string(jwk(t, weak.Public(), "weak", "")),
		"huge RSA":      `{"kty":"RSA","e":"AQAB","n":"` + strings.Repeat("_", 4096) + `"}`,
		"even exponent": strings.Replace(string(jwk(t, keys()["RS256"].Public(), "x", "")), "AQAB", "BA", 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ed := string(jwk(t, keys()["EdDSA"].Public(), "ed", ""))
			_, refused, err := credential.ParseKeySet([]byte(`{"keys":[` + good + `,` + bad + `,` + ed + `]}`))
			if err != nil || len(refused) == 0 {
				t.Errorf("beside good ones: refused %v, %v", refused, err)
			}
			alone := bad
			if bad == good {
				alone += "," + good
			}
			if set, _, err := credential.ParseKeySet([]byte(`{"keys":[` + alone + `]}`)); err == nil {
				t.Errorf("alone: %v", set)
			}
		})
	}
	for _, text := range []string{"", "<html>", "{}", `{"keys":[]}`, `{"keys":{}}`, `{"keys":[],"keys":[]}`} {
		if _, _, err := credential.ParseKeySet([]byte(text)); err == nil {
			t.Errorf("%q is a key set", text)
		}
	}
}

func TestNewVerifierRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*chancerypb.Provider){
		"no issuer":      func(p *chancerypb.Provider) { p.Issuer = "" },
		"no audience":    func(p *chancerypb.Provider) { p.Audiences = nil },
		"empty audience": func(p *chancerypb.Provider) { p.Audiences = []string{"a", ""} },
		"negative skew":  func(p *chancerypb.Provider) { p.ClockSkew = durationpb.New(-1) },
		"no keys":        func(p *chancerypb.Provider) { p.Jwks = nil },
	} {
		p := provider(t)
		change(p)
		if _, err := credential.NewVerifier(p); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := credential.NewVerifier(nil); err == nil {
		t.Error("nil: accepted")
	}
}

func TestCache(t *testing.T) {
	t.Parallel()
	c := credential.NewCache(8)
	p := provider(t)
	v := verifier(t, p)
	good := alter(t)
	first, err := c.Verify(v, good, now, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.Verify(v, good, now, nil); err != nil || again != first {
		t.Errorf("not from the cache: %v, %v", again, err)
	}
	p.FetchedAt, p.UsableUntil = timestamppb.New(now), timestamppb.New(now)
	if again, err := c.Verify(verifier(t, p), good, now, nil); err != nil || again != first {
		t.Errorf("forgotten when the same keys were fetched again: %v, %v", again, err)
	}
	if _, err := c.Verify(v, good, now.Add(311*time.Second), nil); !errors.Is(err, credential.Expired) {
		t.Errorf("expired in the cache: %v", err)
	}
	for name, change := range map[string]func(*chancerypb.Provider){
		"key removed":      func(p *chancerypb.Provider) { p.Jwks = jwks(t, jwk(t, keys()["RS256"].Public(), "RS256", "")) },
		"audience changed": func(p *chancerypb.Provider) { p.Audiences = []string{"other"} },
		"issuer changed":   func(p *chancerypb.Provider) { p.Issuer = "https://other.test/" },
		"user is another":  func(p *chancerypb.Provider) { p.Claims.User = "login" },
	} {
		p := provider(t)
		change(p)
		if id, err := c.Verify(verifier(t, p), good, now, nil); err == nil {
			t.Errorf("%s: %v", name, id)
		}
	}
	if _, err := c.Verify(v, strings.Repeat("A", credential.MaxTokenSize+1), now, nil); !errors.Is(err, credential.Malformed) {
		t.Errorf("too long: %v", err)
	}
}

// A bad signature is one by the keys there are. With others it is looked at anew.
func TestCacheOfForgedTokens(t *testing.T) {
	t.Parallel()
	c, good := credential.NewCache(8), alter(t)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := provider(t)
	p.Jwks = jwks(t, jwk(t, other.Public(), "ES256", "ES256"))
	for range 2 {
		if _, err := c.Verify(verifier(t, p), good, now, nil); !errors.Is(err, credential.BadSignature) {
			t.Errorf("key of another: %v", err)
		}
	}
	if _, err := c.Verify(verifier(t, provider(t)), good, now, nil); err != nil {
		t.Errorf("the right key: %v", err)
	}
}

// More tokens than places, from many goroutines: each gets its own identity.
func TestCacheIsBoundedAndRight(t *testing.T) {
	t.Parallel()
	c := credential.NewCache(8)
	v := verifier(t, provider(t))
	users := strings.Split("abcdefghijklmnopqrstuvwxyz", "")
	tokens := make([]string, len(users))
	for i, user := range users {
		tokens[i] = alter(t, "sub", user)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				for i, token := range tokens {
					if id, err := c.Verify(v, token, now, nil); err != nil || id.User != users[i] {
						t.Errorf("token of %s: %v, %v", users[i], id, err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func FuzzVerify(f *testing.F) {
	v := verifier(f, provider(f))
	good := alter(f)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		if id, err := v.Verify(token, now, nil); err == nil && token != good {
			t.Errorf("accepted %q: %v", token, id)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	v := verifier(b, provider(b))
	good := alter(b)
	b.Run("verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = v.Verify(good, now, nil)
		}
	})
	b.Run("cached", func(b *testing.B) {
		c := credential.NewCache(1000)
		b.ReportAllocs()
		for b.Loop() {
			_, _ = c.Verify(v, good, now, nil)
		}
	})
}

// rawClaim returns a token whose claims begin with members, in JSON as it is.
func rawClaim(t testing.TB, members string) string {
	t.Helper()
	return rawToken(t, `{"alg":"ES256","kid":"ES256","typ":"at+jwt"}`,
		`{`+members+`,"iss":"https://idp.test/","aud":"shop-api","sub":"alice","iat":1800000000,"exp":1800000300}`)
}

// rawToken signs what is given, well-formed or not.
func rawToken(t testing.TB, header, claims string) string {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	unsigned := encode([]byte(header)) + "." + encode([]byte(claims))
	signature, err := jwt.SigningMethodES256.Sign(unsigned, keys()["ES256"])
	if err != nil {
		t.Fatal(err)
	}
	return unsigned + "." + encode(signature)
}
