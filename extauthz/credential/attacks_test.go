package credential_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/chancery-mesh/chancery/extauthz/credential"
)

// refused takes tokens by attack and name.
func refused(t *testing.T, v *credential.Verifier, tokens map[string]string) {
	t.Helper()
	cache := credential.NewCache(8)
	for name, token := range tokens {
		begin := time.Now()
		id, err := v.Verify(token, now, nil)
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
		if err == nil || id != nil || reason(err) != credential.Reason(err.Error()) {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
		if _, err := cache.Verify(v, token, now, nil); err == nil {
			t.Errorf("%s: accepted by the cache", name)
		}
	}
}

const (
	goodHeader = `{"alg":"ES256","kid":"ES256","typ":"at+jwt"}`
	goodClaims = `{"iss":"https://idp.test/","aud":"shop-api","sub":"alice","iat":1800000000,"exp":1800000300}`
)

func segment(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// Attack rows J01, J15, J16, J18, J19, J22, J25, J26 and J27.
func TestMalformedTokens(t *testing.T) {
	t.Parallel()
	v := verifier(t, provider(t))
	good := rawToken(t, goodHeader, goodClaims)
	if _, err := v.Verify(good, now, nil); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	tokens := map[string]string{
		"J22 line feed after":        good + "\n",
		"J22 line feed inside":       good[:20] + "\n" + good[20:],
		"J22 carriage return inside": good[:20] + "\r" + good[20:],
		"J22 padding":                good + "==",
		"J22 spare bits":             good[:len(good)-1] + string(spare(good[len(good)-1])),
		"J22 standard alphabet":      strings.NewReplacer("-", "+", "_", "/").Replace(good) + "+",
		"J25 flattened JSON":         fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2]),
		"J25 general JSON":           fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, parts[1], parts[0], parts[2]),
		"J25 no signatures":          fmt.Sprintf(`{"payload":%q,"signatures":[]}`, parts[1]),
		"J26 one segment":            parts[0],
		"J26 two segments":           parts[0] + "." + parts[1],
		"J26 four segments":          good + "." + parts[2],
		"J26 six segments":           good + "." + good,
		"J26 empty header":           "." + parts[1] + "." + parts[2],
		"J26 empty claims":           parts[0] + ".." + parts[2],
		"J26 empty signature":        parts[0] + "." + parts[1] + ".",
		"J26 only dots":              strings.Repeat(".", 16<<10),
		"J26 a million dots":         strings.Repeat(".", 1_000_000),
		"J27 JWE":                    segment(`{"alg":"dir","enc":"A256GCM"}`) + ".." + parts[1] + "." + parts[1] + "." + parts[2],
		"J27 JWE, PBES2 bomb":        segment(`{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":2147483647,"p2s":"AA"}`) + "." + parts[1] + ".." + parts[1] + ".",
		"J27 JWE in three segments":  rawToken(t, `{"alg":"ES256","kid":"ES256","typ":"at+jwt","enc":"A256GCM"}`, goodClaims),
		"J27 compressed":             rawToken(t, `{"alg":"ES256","kid":"ES256","typ":"at+jwt","zip":"DEF"}`, goodClaims),
		"J27 nested":                 rawToken(t, `{"alg":"ES256","kid":"ES256","cty":"JWT"}`, `"`+good+`"`),
		"J16 b64 with crit":          rawToken(t, `{"alg":"ES256","kid":"ES256","typ":"at+jwt","b64":false,"crit":["b64"]}`, goodClaims),
		"J16 b64 without crit":       rawToken(t, `{"alg":"ES256","kid":"ES256","typ":"at+jwt","b64":false}`, goodClaims),
		"J16 b64 true":               rawToken(t, `{"alg":"ES256","kid":"ES256","typ":"at+jwt","b64":true}`, goodClaims),
		"J01 alg twice":              rawToken(t, `{"alg":"none","alg":"ES256","kid":"ES256"}`, goodClaims),
		"J01 alg missing":            rawToken(t, `{"kid":"ES256","typ":"at+jwt"}`, goodClaims),
		"J01 ALG":                    rawToken(t, `{"ALG":"ES256","kid":"ES256","typ":"at+jwt"}`, goodClaims),
	}
	for i, crit := range []string{`["exp"]`, `["bork"],"bork":1`, `["cnf"]`, `[]`, `"b64"`, `["b64","b64"]`, `null`, `{}`} {
		tokens[fmt.Sprint("J15 crit ", i)] = rawToken(t, `{"alg":"ES256","kid":"ES256","typ":"at+jwt","crit":`+crit+`}`, goodClaims)
	}
	for _, alg := range []string{`"none"`, `"None"`, `"NONE"`, `"nOnE"`, `"none "`, `""`, `null`, `["ES256"]`, `"es256"`, `"ES256\u0000"`} {
		header := segment(`{"alg":` + alg + `,"kid":"ES256","typ":"at+jwt"}`)
		tokens["J01 alg "+alg+", no signature"] = header + "." + parts[1] + "."
		tokens["J01 alg "+alg+", the old signature"] = header + "." + parts[1] + "." + parts[2]
		tokens["J01 alg "+alg+", signed"] = rawToken(t, `{"alg":`+alg+`,"kid":"ES256","typ":"at+jwt"}`, goodClaims)
	}
	for name, members := range map[string]string{
		"J18 sub twice":            `"sub":"user"`,
		"J18 sub twice, escaped":   `"s\u0075b":"user"`,
		"J18 iss twice":            `"iss":"https://evil.test/"`,
		"J18 twice, nested":        `"a":{"b":[{"c":1,"c":2}]}`,
		"J18 unknown twice":        `"x":1,"x":1`,
		"J19 NaN":                  `"a":NaN`,
		"J19 lone surrogate":       `"a":"\ud800"`,
		"J19 invalid UTF-8":        "\"a\":\"\xff\"",
		"J19 replacement":          "\"a\":\"\ufffd\"",
		"J19 overlong":             "\"a\":\"\xc0\x80\"",
		"J19 comment":              `/* a */"a":1`,
		"J19 single quotes":        `'a':1`,
		"J19 line in a string":     "\"a\":\"\n\"",
		"J19 deep":                 `"a":` + strings.Repeat("[", 3000) + strings.Repeat("]", 3000),
		"J19 number with a zero":   `"a":01`,
		"J19 trailing comma":       `"a":[1,]`,
		"J19 nul in an identifier": `"azp":"a\u0000b"`,
	} {
		tokens[name] = rawClaim(t, members)
	}
	for name, claims := range map[string]string{
		"J19 garbage after":   goodClaims + "x",
		"J19 two objects":     goodClaims + goodClaims,
		"J19 byte order mark": "\ufeff" + goodClaims,
		"J19 array":           "[" + goodClaims + "]",
		"J19 null":            "null",
		"J19 string":          `"` + segment(goodClaims) + `"`,
		"J19 empty":           "",
		"J19 UTF-16":          "{\x00}\x00",
		"J19 exp too large":   strings.Replace(goodClaims, "1800000300", "1e400", 1),
	} {
		tokens[name] = rawToken(t, goodHeader, claims)
	}
	refused(t, v, tokens)
}

// spare is a character of the same data bits, as the last of a signature.
func spare(c byte) byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return alphabet[strings.IndexByte(alphabet, c)^1]
}

// Attack rows J02, J03, J04, J05, J06, J07, J08, J20, J23 and J24.
func TestForgedTokens(t *testing.T) {
	t.Parallel()
	sink, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	var called atomic.Int32
	go func() {
		for {
			c, err := sink.Accept()
			if err != nil {
				return
			}
			called.Add(1)
			c.Close()
		}
	}()
	url := "http://" + sink.Addr().String() + "/"
	attacker, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tokens := map[string]string{}
	by := func(key any, alg string, header map[string]any) string {
		k := jwt.NewWithClaims(jwt.GetSigningMethod(alg), jwt.MapClaims(newToken().claims))
		k.Header["typ"], k.Header["kid"] = "at+jwt", "ES256"
		maps.Copy(k.Header, header)
		signed, err := k.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	own := json.RawMessage(jwk(t, attacker.Public(), "ES256", "ES256"))
	for name, header := range map[string]map[string]any{
		"J04 jwk":                     {"jwk": own},
		"J04 jwk, without kid":        {"jwk": own, "kid": nil},
		"J05 jku":                     {"jku": url},
		"J05 jku, with user":          {"jku": strings.Replace(url, "//", "//idp.test@", 1)},
		"J06 x5u":                     {"x5u": url},
		"J06 x5c":                     {"x5c": []string{base64.StdEncoding.EncodeToString(selfSigned(t, attacker))}},
		"J06 x5t":                     {"x5t": "AAAA", "x5t#S256": "AAAA"},
		"J07 path":                    {"kid": "../../../../dev/null"},
		"J07 file":                    {"kid": "/etc/passwd"},
		"J07 SQL":                     {"kid": "k1' OR '1'='1"},
		"J07 NUL":                     {"kid": "ES256\x00"},
		"J07 encoded NUL":             {"kid": "ES256%00"},
		"J07 null":                    {"kid": nil},
		"J07 number":                  {"kid": 123},
		"J07 list":                    {"kid": []string{"ES256"}},
		"J07 object":                  {"kid": map[string]any{"a": 1}},
		"J07 1 MiB":                   {"kid": strings.Repeat("k", 1<<20)},
		"J07 nearly as long as it is": {"kid": strings.Repeat("k", 8<<10)},
	} {
		tokens[name] = by(attacker, "ES256", header)
	}
	rsaKey := keys()["RS256"].Public().(*rsa.PublicKey)
	spki, err := x509.MarshalPKIXPublicKey(rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	for name, secret := range map[string][]byte{
		"J02 PEM":               block,
		"J02 PEM, no line feed": bytes.TrimSpace(block),
		"J02 DER":               spki,
		"J02 PKCS #1":           x509.MarshalPKCS1PublicKey(rsaKey),
		"J02 modulus":           rsaKey.N.Bytes(),
		"J02 JWK":               jwk(t, rsaKey, "RS256", "RS256"),
		"J02 x5c":               []byte(base64.StdEncoding.EncodeToString(spki)),
		"J08 empty secret":      {},
	} {
		tokens[name] = by(secret, "HS256", map[string]any{"kid": "RS256"})
		tokens[name+", kid of a file"] = by(secret, "HS256", map[string]any{"kid": "../../dev/null"})
		tokens[name+", RS256 it says"] = by(secret, "HS256", map[string]any{"kid": "RS256", "alg": "RS256"})
	}
	for alg, key := range map[string]string{
		"PS256": "RS256", "RS384": "RS256", "RS512": "RS256", "RS256": "PS256", "PS384": "PS256", "PS512": "PS256",
	} {
		tokens["J03 "+alg+" by a key for "+key] = by(keys()[key], alg, map[string]any{"kid": key})
	}
	tokens["J03 ES384 by a key for ES256"] = alter(t, "header.alg", "ES384")
	tokens["J03 ES256 by a key for EdDSA"] = alter(t, "header.kid", "EdDSA")
	wrongSalt := &jwt.SigningMethodRSAPSS{SigningMethodRSA: jwt.SigningMethodPS256.SigningMethodRSA, Options: &rsa.PSSOptions{SaltLength: 20}}
	k := jwt.NewWithClaims(wrongSalt, jwt.MapClaims(newToken().claims))
	k.Header["kid"] = "PS256"
	if tokens["J23 salt of 20 bytes"], err = k.SignedString(keys()["PS256"]); err != nil {
		t.Fatal(err)
	}
	psychic(t, tokens)
	truncated(t, tokens)
	refused(t, verifier(t, provider(t)), tokens)
	if n := called.Load(); n != 0 {
		t.Errorf("J05 and J06: %d connections to where a token said", n)
	}
}

// psychic adds ECDSA signatures with numbers that a careless verifier divides by.
func psychic(t *testing.T, tokens map[string]string) {
	t.Helper()
	n := elliptic.P256().Params().N
	numbers := []*big.Int{big.NewInt(0), big.NewInt(1), new(big.Int).Sub(n, big.NewInt(1)), n}
	unsigned := segment(goodHeader) + "." + segment(goodClaims) + "."
	for i, r := range numbers {
		for j, s := range numbers {
			signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
			tokens[fmt.Sprint("J20 psychic ", i, j)] = unsigned + base64.RawURLEncoding.EncodeToString(signature)
		}
	}
	tokens["J20 blank DER"] = unsigned + "MAYCAQACAQA"
}

// truncated adds RSA signatures that are not of the modulus's size.
func truncated(t *testing.T, tokens map[string]string) {
	t.Helper()
	k := newToken()
	k.algorithm, k.key, k.header["kid"] = "RS256", keys()["RS256"], "RS256"
	unsigned, signature := cutSignature(t, k.sign(t))
	modulus := keys()["RS256"].Public().(*rsa.PublicKey).N
	for name, s := range map[string][]byte{
		"J24 truncated":      signature[:len(signature)-1],
		"J24 zero before":    append([]byte{0}, signature...),
		"J24 zero after":     append(bytes.Clone(signature), 0),
		"J24 zero":           make([]byte, len(signature)),
		"J24 one":            big.NewInt(1).FillBytes(make([]byte, len(signature))),
		"J24 modulus":        modulus.Bytes(),
		"J24 modulus less 1": new(big.Int).Sub(modulus, big.NewInt(1)).Bytes(),
		"J24 plus modulus":   new(big.Int).Add(new(big.Int).SetBytes(signature), modulus).Bytes(),
	} {
		tokens[name] = unsigned + base64.RawURLEncoding.EncodeToString(s)
	}
}

func cutSignature(t *testing.T, token string) (unsigned string, signature []byte) {
	t.Helper()
	i := strings.LastIndexByte(token, '.')
	signature, err := base64.RawURLEncoding.DecodeString(token[i+1:])
	if err != nil {
		t.Fatal(err)
	}
	return token[:i+1], signature
}

func selfSigned(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: now}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// Attack rows J10 to J14: what a key set may not do.
func TestKeySetsAttacked(t *testing.T) {
	t.Parallel()
	good := jwk(t, keys()["ES256"].Public(), "ES256", "ES256")
	rsaKey := keys()["RS256"].Public().(*rsa.PublicKey)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	rsaJWK := func(n []byte, e string) json.RawMessage {
		return fmt.Appendf(nil, `{"kty":"RSA","kid":"x","n":%q,"e":%q}`, base64.RawURLEncoding.EncodeToString(n), e)
	}
	roca := new(big.Int).Exp(big.NewInt(65537), big.NewInt(128), nil)
	for name, bad := range map[string]json.RawMessage{
		"J11 kid twice":           good,
		"J12 for encryption":      bytes.Replace(good, []byte(`"sig"`), []byte(`"enc"`), 1),
		"J12 key_ops":             bytes.Replace(good, []byte(`"use":"sig"`), []byte(`"key_ops":["encrypt"]`), 1),
		"J13 symmetric":           []byte(`{"kty":"oct","kid":"x","k":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"}`),
		"J08 empty secret":        []byte(`{"kty":"oct","kid":"x","k":""}`),
		"J14 RSA of 1024 bits":    rsaJWK(weak.N.Bytes(), "AQAB"),
		"J14 RSA of 16384 bits":   rsaJWK(bytes.Repeat([]byte{0xff}, 2048), "AQAB"),
		"J14 RSA exponent 1":      rsaJWK(rsaKey.N.Bytes(), "AQ"),
		"J14 RSA exponent even":   rsaJWK(rsaKey.N.Bytes(), "BA"),
		"J14 ROCA":                rsaJWK(roca.Bytes(), "AQAB"),
		"J14 not on the curve":    []byte(`{"kty":"EC","kid":"x","crv":"P-256","x":"` + strings.Repeat("A", 43) + `","y":"` + strings.Repeat("A", 43) + `"}`),
		"J14 P-256 for ES512":     bytes.Replace(good, []byte(`"alg":"ES256"`), []byte(`"alg":"ES512"`), 1),
		"J14 secp256k1":           bytes.Replace(good, []byte("P-256"), []byte("secp256k1"), 1),
		"J14 curve of other size": bytes.Replace(good, []byte("P-256"), []byte("P-521"), 1),
	} {
		_, refused, err := credential.ParseKeySet(jwks(t, good, bad, jwk(t, keys()["EdDSA"].Public(), "EdDSA", "EdDSA")))
		if err != nil || len(refused) == 0 {
			t.Errorf("%s: refused %v, %v", name, refused, err)
		}
	}
}

// Attack rows J10 and J11: a token without a key's name, and a name that is two
// keys'.
func TestOneSignatureIsTried(t *testing.T) {
	t.Parallel()
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	mine := keys()["ES256"].Public()
	for name, row := range map[string]struct {
		keys []json.RawMessage
		kid  any
		want credential.Reason
	}{
		"J10 no kid, one key":        {[]json.RawMessage{jwk(t, mine, "a", "ES256")}, nil, "accepted"},
		"J10 no kid, two keys":       {[]json.RawMessage{jwk(t, mine, "a", "ES256"), jwk(t, other.Public(), "b", "ES256")}, nil, credential.UnknownKey},
		"J11 one kid of two keys":    {[]json.RawMessage{jwk(t, mine, "a", "ES256"), jwk(t, other.Public(), "a", "ES256"), jwk(t, keys()["EdDSA"].Public(), "b", "")}, "a", credential.UnknownKey},
		"J11 kid of nobody":          {[]json.RawMessage{jwk(t, mine, "a", "ES256")}, "b", credential.UnknownKey},
		"J11 kid of the same letter": {[]json.RawMessage{jwk(t, mine, "a", "ES256")}, "A", credential.UnknownKey},
	} {
		p := provider(t)
		p.Jwks = jwks(t, row.keys...)
		if _, err := verifier(t, p).Verify(alter(t, "header.kid", row.kid), now, nil); reason(err) != row.want {
			t.Errorf("%s: %v, want %v", name, err, row.want)
		}
	}
}

// Attack row J14: the largest RSA key that is taken verifies in a few
// milliseconds.
func TestLargestKeyIsNoBomb(t *testing.T) {
	t.Parallel()
	n := bytes.Repeat([]byte{0xff}, 1024)
	n[0], n[1023] = 0x9d, 0x05
	set := fmt.Sprintf(`{"keys":[{"kty":"RSA","kid":"ES256","n":%q,"e":"AQAB"}]}`, base64.RawURLEncoding.EncodeToString(n))
	p := provider(t)
	p.Jwks = []byte(set)
	v, err := credential.NewVerifier(p)
	if err != nil {
		t.Fatal(err)
	}
	signature := base64.RawURLEncoding.EncodeToString(append([]byte{0x11}, bytes.Repeat([]byte{0x22}, 1023)...))
	token := segment(`{"alg":"RS256","kid":"ES256","typ":"at+jwt"}`) + "." + segment(goodClaims) + "." + signature
	best := time.Hour
	for range 20 {
		begin := time.Now()
		if _, err := v.Verify(token, now, nil); reason(err) != credential.BadSignature {
			t.Fatal(err)
		}
		best = min(best, time.Since(begin))
	}
	if limit := 50 * time.Millisecond; best > limit {
		t.Errorf("J14: %v", best)
	}
}

// Attack rows J26 and J28: what is too long costs nothing, and no token much more
// than itself.
func TestBigTokens(t *testing.T) {
	t.Parallel()
	v := verifier(t, provider(t))
	// fill returns a token of nearly size bytes.
	fill := func(size int) string { return alter(t, "x", strings.Repeat("a", (size-len(alter(t)))*3/4-20)) }
	for name, row := range map[string]struct {
		token string
		want  credential.Reason
	}{
		"J28 8 KiB":             {fill(8 << 10), "accepted"},
		"J28 nearly 16 KiB":     {fill(credential.MaxTokenSize), "accepted"},
		"J28 64 KiB":            {alter(t, "x", strings.Repeat("a", 48<<10)), credential.Malformed},
		"J28 1 MiB":             {alter(t, "x", strings.Repeat("a", 1<<20)), credential.Malformed},
		"J28 thousand claims":   {rawClaim(t, manyClaims(1000)), "accepted"},
		"J28 10 000 claims":     {rawClaim(t, manyClaims(10_000)), credential.Malformed},
		"J26 dots":              {strings.Repeat(".", 16<<10), credential.Malformed},
		"J26 10^6 dots":         {strings.Repeat(".", 1_000_000), credential.Malformed},
		"C05 100 000 audiences": {rawToken(t, goodHeader, `{"aud":["`+strings.Repeat(`a","`, 100_000)+`shop-api"]}`), credential.Malformed},
	} {
		if len(row.token) > credential.MaxTokenSize && row.want == "accepted" {
			t.Fatalf("%s: has %d bytes", name, len(row.token))
		}
		if _, err := v.Verify(row.token, now, nil); reason(err) != row.want {
			t.Errorf("%s: %v, want %v", name, err, row.want)
		}
	}
}

func TestRefusingIsCheap(t *testing.T) {
	v := verifier(t, provider(t))
	for name, token := range map[string]string{
		"J26 dots":       strings.Repeat(".", 16<<10),
		"J26 long parts": strings.Repeat("A", 8<<10) + "." + strings.Repeat("A", 8<<9) + ".",
		"J28 1 MiB":      strings.Repeat("a", 1<<20),
	} {
		if n := testing.AllocsPerRun(10, func() { _, _ = v.Verify(token, now, nil) }); n > 20 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func manyClaims(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"%04x":0,`, i)
	}
	return strings.TrimSuffix(b.String(), ",")
}

// Attack row C13: an address names nobody unless it is verified.
func TestEmailAsUser(t *testing.T) {
	t.Parallel()
	p := provider(t)
	p.Claims.User = "email"
	v := verifier(t, p)
	for name, row := range map[string]struct {
		email, verified any
		want            credential.Reason
	}{
		"C13 verified":          {"alice@corp.test", true, "accepted"},
		"C13 not verified":      {"alice@corp.test", false, credential.BadClaim},
		"C13 verified, a text":  {"alice@corp.test", "true", credential.BadClaim},
		"C13 verified, 1":       {"alice@corp.test", 1, credential.BadClaim},
		"C13 not told":          {"alice@corp.test", nil, credential.BadClaim},
		"C13 two at signs":      {"a@evil.test@corp.test", true, credential.BadClaim},
		"C13 no at sign":        {"alice", true, credential.BadClaim},
		"C13 with a line break": {"alice@corp.test\r\nx: y", true, credential.BadClaim},
	} {
		if _, err := v.Verify(alter(t, "email", row.email, "email_verified", row.verified), now, nil); reason(err) != row.want {
			t.Errorf("%s: %v, want %v", name, err, row.want)
		}
	}
}

// Attack rows C12, C14 and C04: what looks alike is not the same.
func TestNothingIsNormalized(t *testing.T) {
	t.Parallel()
	v := verifier(t, provider(t))
	seen := map[string]bool{}
	for _, user := range []string{"ren\u00e9", "rene\u0301", "alice", "Alice", "\uff41lice", "al\u0456ce"} {
		id, err := v.Verify(alter(t, "sub", user), now, nil)
		if err != nil || id.User != user || seen[id.User] {
			t.Errorf("C12 %+q: %+v, %v", user, id, err)
			continue
		}
		seen[id.User] = true
	}
	for scope, want := range map[any][]string{
		"read admin": {"read", "admin"}, "readadmin": {"readadmin"}, "administrator": {"administrator"}, "read Admin": {"read", "Admin"},
	} {
		id, err := v.Verify(alter(t, "scope", scope), now, nil)
		if err != nil || strings.Join(id.Scopes, "|") != strings.Join(want, "|") {
			t.Errorf("C14 %v: %+v, %v", scope, id, err)
		}
	}
	tokens := map[string]string{}
	for _, issuer := range []string{
		"https://idp.test", "https://idp.test//", "https://idp.test/.", "http://idp.test/", "https://idp.test:443/", "https://IDP.test/",
		"https://idp%2etest/", "https://idp.test/ ", "https://idp.test/?", "https://idp.test/#", "https://evil.test/https://idp.test/", "",
	} {
		tokens["C04 "+issuer] = alter(t, "iss", issuer)
	}
	tokens["C04 null"] = rawToken(t, goodHeader, strings.Replace(goodClaims, `"https://idp.test/"`, "null", 1))
	refused(t, v, tokens)
}

// Attack row C09: a Passport is nobody's credential at the edge, not even if its
// keys were a provider's.
func TestPassportFromOutside(t *testing.T) {
	t.Parallel()
	refused(t, verifier(t, provider(t)), map[string]string{
		"C09 as it is":         alter(t, "header.typ", "txntoken+jwt", "iss", nil, "aud", "shop.example", "txn", "t", "req_wl", "spiffe://shop.example/gateway/public"),
		"C09 for this":         alter(t, "header.typ", "txntoken+jwt"),
		"C09 as a media type":  alter(t, "header.typ", "application/txntoken+jwt"),
		"C09 in other letters": alter(t, "header.typ", "TxnToken+JWT"),
	})
}

// Attack row C17: one subject of two issuers is two.
func TestIssuersAreApart(t *testing.T) {
	t.Parallel()
	cache := credential.NewCache(8)
	one, two := provider(t), provider(t)
	two.Name, two.Issuer = "partners", "https://partners.test/"
	token := alter(t)
	if id, err := cache.Verify(verifier(t, one), token, now, nil); err != nil || id.Provider != "staff" {
		t.Errorf("C17: %+v, %v", id, err)
	}
	if id, err := cache.Verify(verifier(t, two), token, now, nil); reason(err) != credential.WrongIssuer {
		t.Errorf("C17 at the other: %+v, %v", id, err)
	}
	id, err := cache.Verify(verifier(t, two), alter(t, "iss", two.Issuer), now, nil)
	if err != nil || id.Provider != "partners" || id.Issuer != two.Issuer {
		t.Errorf("C17 of the other: %+v, %v", id, err)
	}
}

// Many short names take more memory than their text.
//
//nolint:paralleltest // it measures memory
func TestCacheIsBoundedInNames(t *testing.T) {
	v := verifier(t, provider(t))
	for _, scopes := range []int{300, 5_900} {
		c := credential.NewCache(1024)
		before := heap()
		for i := range 1_500 {
			token := alter(t, "sub", fmt.Sprint("user-", i), "scope", strings.TrimSpace(strings.Repeat("a ", scopes)))
			if id, err := c.Verify(v, token, now, nil); err != nil || len(id.Scopes) != scopes {
				t.Fatal(id, err)
			}
		}
		kept := heap() - before
		tokens, size := c.Held()
		t.Logf("%d scopes: %d tokens of %d KiB, %d KiB in memory", scopes, tokens, size>>10, kept>>10)
		if most := 1024 / 4 * 16 << 10; kept > most {
			t.Errorf("%d scopes: %d KiB are kept, at most %d should be", scopes, kept>>10, most>>10)
		}
	}
}

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// A cache is bounded in bytes as well.
func TestCacheIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	c, v := credential.NewCache(32), verifier(t, provider(t))
	for i := range 200 {
		token := alter(t, "sub", fmt.Sprint("user-", i), "x", strings.Repeat("a", 6<<10))
		if _, err := c.Verify(v, token, now, nil); err != nil {
			t.Fatal(err)
		}
		if id, err := c.Verify(v, token, now, nil); err != nil || id.User != fmt.Sprint("user-", i) {
			t.Fatal(id, err)
		}
	}
	tokens, size := c.Held()
	if tokens > 32 || tokens < 4 || size > 8*16<<10 {
		t.Errorf("%d tokens of %d bytes", tokens, size)
	}
}
