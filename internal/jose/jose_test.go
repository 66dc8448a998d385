package jose_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/internal/jose"
)

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// manyMembers are more than a list is kept of.
var manyMembers = func() string {
	var b strings.Builder
	for i := range 20 {
		fmt.Fprintf(&b, `"m%d":%d,`, i, i)
	}
	return b.String()
}()

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	good := b64(`{"alg":"EdDSA"}`) + "." + b64(`{"sub":"u"}`) + "." + b64("signature")
	if _, err := jose.Parse(good, 1000); err != nil {
		t.Fatal(err)
	}
	header := func(json string) string { return b64(json) + good[strings.IndexByte(good, '.'):] }
	claims := func(json string) string { return b64(`{"alg":"EdDSA"}`) + "." + b64(json) + ".c2ln" }
	for name, token := range map[string]string{
		"empty":                  "",
		"one segment":            "e30",
		"two segments":           "e30.e30",
		"four segments":          good + ".e30",
		"only dots":              strings.Repeat(".", 900),
		"too long":               good + strings.Repeat("A", 1000),
		"line feed inside":       good[:5] + "\n" + good[5:],
		"carriage return inside": good[:5] + "\r" + good[5:],
		"line feed after":        good + "\n",
		"padding":                good + "==",
		"unused bits":            b64(`{"alg":"EdDSA"}`) + "." + b64(`{"sub":"u"}`) + ".c2lnAB",
		"standard alphabet":      good + "+/",
		"JSON serialization":     `{"payload":"e30","signatures":[]}`,
		"header not JSON":        header(`{`),
		"header array":           header(`[]`),
		"header null":            header(`null`),
		"alg number":             header(`{"alg":1}`),
		"alg null":               header(`{"alg":null}`),
		"crit":                   header(`{"alg":"EdDSA","crit":["exp"]}`),
		"crit empty":             header(`{"alg":"EdDSA","crit":[]}`),
		"b64":                    header(`{"alg":"EdDSA","b64":false}`),
		"jwk":                    header(`{"alg":"EdDSA","jwk":{}}`),
		"jku":                    header(`{"alg":"EdDSA","jku":"https://evil.test"}`),
		"x5u":                    header(`{"alg":"EdDSA","x5u":"https://evil.test"}`),
		"zip":                    header(`{"alg":"EdDSA","zip":"DEF"}`),
		"duplicate claim":        claims(`{"sub":"u","sub":"admin"}`),
		"duplicate nested":       claims(`{"a":[{"b":1,"b":2}]}`),
		"duplicate escaped":      claims(`{"sub":"u","s\u0075b":"admin"}`),
		"trailing garbage":       claims(`{} {}`),
		"byte order mark":        claims("\ufeff{}"),
		"invalid UTF-8":          claims("{\"sub\":\"\xff\"}"),
		"lone surrogate":         claims(`{"sub":"\ud800"}`),
		"lone surrogate in name": claims(`{"\udfff":1}`),
		"comma at the end":       claims(`{"a":1,}`),
		"comma at the beginning": claims(`{,"a":1}`),
		"two commas":             claims(`{"a":[1,,2]}`),
		"no comma":               claims(`{"a":1 "b":2}`),
		"no colon":               claims(`{"a" 1}`),
		"no value":               claims(`{"a":}`),
		"no name":                claims(`{1:1}`),
		"bracket for brace":      claims(`{"a":[1}`),
		"end of text":            claims(`{"a":"b`),
		"escape at the end":      claims(`{"a":"\`),
		"control character":      claims("{\"a\":\"\x01\"}"),
		"NUL":                    claims("{\"a\":1\x00}"),
		"unknown escape":         claims(`{"a":"\x"}`),
		"zero before a number":   claims(`{"a":01}`),
		"plus before a number":   claims(`{"a":+1}`),
		"no digit":               claims(`{"a":-}`),
		"no fraction":            claims(`{"a":1.}`),
		"no exponent":            claims(`{"a":1e}`),
		"half a word":            claims(`{"a":tru}`),
		"word and a half":        claims(`{"a":nullx}`),
		"duplicate among many":   claims(`{` + manyMembers + `"m20":1,"m20":2}`),
		"NaN":                    claims(`{"exp":NaN}`),
		"comment":                claims(`{/**/}`),
		"too deep":               claims(strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := jose.Parse(token, 1000); !errors.Is(err, jose.ErrMalformed) {
				t.Errorf("err = %v, want ErrMalformed", err)
			}
		})
	}
}

func TestParser(t *testing.T) {
	t.Parallel()
	p, err := jose.NewParser([]byte(` { "s" : "é\u00e9" , "l":["a","b"], "t":99.5, "o":{"x":{"y":[1,true,null]}},"e":[] } `))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]any{}
	err = p.Object(func(name string) (err error) {
		switch name {
		case "s":
			got[name], err = p.String()
		case "l", "e":
			got[name], err = p.Strings()
		case "t":
			got[name], err = p.Time()
		case "o":
			err = p.Skip()
		}
		return err
	})
	if err := errors.Join(err, p.End()); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"s": "éé", "l": []string{"a", "b"}, "t": time.Unix(99, 5e8), "e": []string{}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What parses is refused where it is of another type than is asked for, or
// stands twice.
func TestParserRefuses(t *testing.T) {
	t.Parallel()
	for text, read := range map[string]func(*jose.Parser) error{
		`{"a":1}`:                         func(p *jose.Parser) error { _, err := p.String(); return err },
		`{"a":{"b":1,"b":2}}`:             (*jose.Parser).Skip,
		`{"a":1,"a":2}`:                   (*jose.Parser).Skip,
		`{` + manyMembers + `"m1":1}`:     (*jose.Parser).Skip,
		`{` + manyMembers + `"m19":1}`:    (*jose.Parser).Skip,
		`{"a":["b",1]}`:                   func(p *jose.Parser) error { _, err := p.Strings(); return err },
		`{"a":"b"}`:                       func(p *jose.Parser) error { _, err := p.Strings(); return err },
		`{"a":"1"}`:                       func(p *jose.Parser) error { _, err := p.Time(); return err },
		`{"a":-1}`:                        func(p *jose.Parser) error { _, err := p.Time(); return err },
		`{"a":1} x`:                       (*jose.Parser).Skip,
		`{"a":[]}`:                        func(p *jose.Parser) error { return p.Object(func(string) error { return nil }) },
		`[]`:                              (*jose.Parser).Skip,
		``:                                (*jose.Parser).Skip,
		strings.Repeat(`{"a":`, 40) + `1`: (*jose.Parser).Skip,
	} {
		p, err := jose.NewParser([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		err = p.Object(func(string) error { return read(p) })
		if err := errors.Join(err, p.End()); !errors.Is(err, jose.ErrMalformed) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := jose.NewParser([]byte("\xff")); !errors.Is(err, jose.ErrMalformed) {
		t.Errorf("not UTF-8: %v", err)
	}
}

func TestNamesAreCaseSensitive(t *testing.T) {
	t.Parallel()
	o, err := jose.ParseObject([]byte(`{"iss":"idp","ISS":"evil","Sub":"admin"}`))
	if err != nil {
		t.Fatal(err)
	}
	if iss, _, _ := o.String("iss"); iss != "idp" {
		t.Errorf("iss = %q", iss)
	}
	if _, present, _ := o.String("sub"); present {
		t.Error("Sub was taken for sub")
	}
}

func TestTime(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Time{
		`99.5`:                    time.Unix(99, 5e8),
		`0`:                       time.Unix(0, 0),
		`253402300799`:            time.Unix(253402300799, 0),
		`253402300800`:            {},
		`"9999999999"`:            {},
		`1e300`:                   {},
		`1e400`:                   {},
		`-1`:                      {},
		`true`:                    {},
		`null`:                    {},
		`[1]`:                     {},
		strings.Repeat("9", 1000): {},
	} {
		o, err := jose.ParseObject([]byte(`{"exp":` + text + `}`))
		if err != nil {
			t.Fatal(err)
		}
		got, present, err := o.Time("exp")
		if !present || !got.Equal(want) || (err != nil) != want.IsZero() {
			t.Errorf("%s: %v, %v, %v", text, got, present, err)
		}
	}
	if _, present, err := (jose.Object{}).Time("exp"); present || err != nil {
		t.Errorf("missing: %v, %v", present, err)
	}
}

func TestStrings(t *testing.T) {
	t.Parallel()
	o, err := jose.ParseObject([]byte(`{"a":["x","y"],"empty":[],"mixed":["x",1],"text":"x","null":null}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{"a": {"x", "y"}, "empty": {}} {
		if got, present, err := o.Strings(name); !present || err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: %v, %v, %v", name, got, present, err)
		}
	}
	for _, name := range []string{"mixed", "text", "null"} {
		if _, _, err := o.Strings(name); !errors.Is(err, jose.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIsIdentifier(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"alice": true, "~!": true, "a\x7f": false, "\u00a0a": false, "a\u3000": false, "Ünï Gruppe": true, "auth0|5f7c": true, "a@b.test": true,
		"": false, " a": false, "a ": false, "a\n": false, "a\x00b": false, "a\u202eb": false,
		"a\u2028b": false, "a\xff": false, strings.Repeat("a", 1025): false,
	} {
		if got := jose.IsIdentifier(s); got != want {
			t.Errorf("IsIdentifier(%.20q) = %v", s, got)
		}
	}
}

func TestKeyIsBoundToItsAlgorithm(t *testing.T) {
	t.Parallel()
	public, private, _ := ed25519.GenerateKey(rand.Reader)
	signed, err := jose.Sign(b64(`{"alg":"EdDSA"}`), []byte(`{}`), "EdDSA", private)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jose.Parse(signed, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Verify(jose.Key{Algorithm: "EdDSA", Public: public}); err != nil {
		t.Error(err)
	}
	other, _, _ := ed25519.GenerateKey(rand.Reader)
	if err := token.Verify(jose.Key{Algorithm: "EdDSA", Public: other}); !errors.Is(err, jose.ErrSignature) {
		t.Errorf("other key: %v", err)
	}
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := token.Verify(jose.Key{Algorithm: "ES256", Public: &ec.PublicKey}); !errors.Is(err, jose.ErrAlgorithm) {
		t.Errorf("other algorithm: %v", err)
	}
}

func TestParseKeyRefuses(t *testing.T) {
	t.Parallel()
	const x = `"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`
	const ed = `"kty":"OKP","crv":"Ed25519",` + x
	for jwk, want := range map[string]bool{
		`{` + ed + `}`:                                     true,
		`{` + ed + `,"alg":"EdDSA","use":"sig"}`:           true,
		`{` + ed + `,"key_ops":["verify"]}`:                true,
		`{` + ed + `,"x5u":"https://evil.test/"}`:          true, // never fetched
		`{` + ed + `,"alg":"ES256"}`:                       false,
		`{` + ed + `,"alg":"HS256"}`:                       false,
		`{` + ed + `,"alg":1}`:                             false,
		`{` + ed + `,"kid":1}`:                             false,
		`{` + ed + `,"use":"enc"}`:                         false,
		`{` + ed + `,"key_ops":["encrypt"]}`:               false,
		`{` + ed + `,"key_ops":"verify"}`:                  false,
		`{` + ed + `,"d":"AA"}`:                            false,
		`{` + ed + `,"k":"AA"}`:                            false,
		`{"kty":"OKP","crv":"X25519",` + x + `}`:           false,
		`{"kty":"OKP","crv":"Ed25519","x":"AA"}`:           false,
		`{"kty":"oct","k":""}`:                             false,
		`{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}`:     false,
		`{"kty":"RSA","n":"AQAB","e":"AQAB"}`:              false,
		`{"KTY":"OKP","crv":"Ed25519",` + x + `}`:          false,
		`{"kty":"EC","crv":"secp256k1",` + x + `,"y":"A"}`: false,
	} {
		o, err := jose.ParseObject([]byte(jwk))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := jose.ParseKey(o); (err == nil) != want {
			t.Errorf("%s: %v", jwk, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(b64(`{"alg":"EdDSA"}`) + "." + b64(`{"sub":"u"}`) + ".c2ln")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		parsed, err := jose.Parse(token, 1000)
		if err != nil {
			return
		}
		// One spelling: what was read encodes to what was sent.
		for i, segment := range strings.Split(token, ".") {
			data, err := jose.Decode(segment)
			if err != nil || base64.RawURLEncoding.EncodeToString(data) != segment {
				t.Errorf("segment %d of %q is not canonical", i, token)
			}
		}
		if parsed.Claims == nil || parsed.Header == nil {
			t.Error("no claims or header")
		}
	})
}

// What is accepted reads as encoding/json reads it.
func FuzzParseObject(f *testing.F) {
	f.Add(`{"a":[1,-2.5e3,"x\\n\\"\\u00e9",{"b":null}],"c":true , "d" : false,"e":{},"f":[] }`)
	f.Add(`{"a":1,"a":2}`)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := jose.ParseObject([]byte(text))
		if err != nil {
			if isPlainObject(text) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		var want map[string]any
		if err := d.Decode(&want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(any(want), plain(got)); diff != "" {
			t.Errorf("%s", diff)
		}
	})
}

// isPlainObject reports whether nobody could read text in another way, by
// encoding it once more.
func isPlainObject(text string) bool {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var o map[string]any
	if !json.Valid([]byte(text)) || d.Decode(&o) != nil || o == nil || strings.Contains(text, `\`) ||
		strings.ContainsRune(text, utf8.RuneError) || !utf8.ValidString(text) {
		return false
	}
	var compact, again bytes.Buffer
	encoder := json.NewEncoder(&again)
	encoder.SetEscapeHTML(false)
	if json.Compact(&compact, []byte(text)) != nil || encoder.Encode(o) != nil {
		return false
	}
	// Members that stand twice are lost.
	return compact.Len()+1 == again.Len() && strings.Count(text, "{") < 30 && strings.Count(text, "[") < 30
}

// plain makes Objects what encoding/json makes of them.
func plain(v any) any {
	switch v := v.(type) {
	case jose.Object:
		m := map[string]any{}
		for name, member := range v {
			m[name] = plain(member)
		}
		return m
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	}
	return v
}

func TestParseValue(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]any{
		`1`: json.Number("1"), `-1.5e3`: json.Number("-1.5e3"), ` true `: true, `null`: nil, `"a"`: "a", `[]`: []any{}, `{}`: jose.Object{},
		`[{"a": [1, "x"]}]`: []any{jose.Object{"a": []any{json.Number("1"), "x"}}}, "[[[1]]]": []any{[]any{[]any{json.Number("1")}}},
	} {
		got, err := jose.ParseValue([]byte(text), 3)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got)\n%s", text, err, diff)
		}
	}
	for _, text := range []string{
		``, ` `, `1 2`, `1,2`, `{} {}`, `{"a":1,"a":2}`, `[{"a":1,"\u0061":2}]`, "\"\xff\"", `"\ud800"`, `[[[[1]]]]`, "\ufeff1", `NaN`, `01`,
	} {
		if v, err := jose.ParseValue([]byte(text), 3); !errors.Is(err, jose.ErrMalformed) {
			t.Errorf("%s: %v, %v", text, v, err)
		}
	}
}

// Members that encoding/json takes for the same are no two.
func TestParseBody(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{"amount":1,"AMOUNT":2}`, `{"amount":1,"Amount":2}`, `{"kind":1,"\u212aind":2}`, `{"is":1,"I\u017f":2}`, `{"é":1,"É":2}`, `{"σ":1,"ς":2}`,
		`[{"a":{"b":1,"B":2}}]`, `{"a":1,"a":2}`, `{"a":1,"\u0041":2}`, `{"µ":1,"μ":2}`,
	} {
		if v, err := jose.ParseBody([]byte(text), 5); !errors.Is(err, jose.ErrMalformed) {
			t.Errorf("%s: %v, %v", text, v, err)
		}
		if v, err := jose.ParseValue([]byte(text), 5); err != nil && text != `{"a":1,"a":2}` {
			t.Errorf("%s: %v, %v", text, v, err)
		}
	}
	for _, text := range []string{`{"a":{"b":1},"B":2,"c":[{"A":1},{"a":1}]}`, `{"ss":1,"ß":2,"ı":3,"i":4,"İ":5}`, `{}`, `1`} {
		if v, err := jose.ParseBody([]byte(text), 5); err != nil {
			t.Errorf("%s: %v, %v", text, v, err)
		}
	}
	// Whatever two letters are, they are the same here where strings.EqualFold
	// says so.
	for r := rune(' '); r <= unicode.MaxRune; r++ {
		other := unicode.SimpleFold(r)
		if other == r || r == '"' {
			continue
		}
		if v, err := jose.ParseBody(fmt.Appendf(nil, `{"x%c":1,"X%c":2}`, r, other), 1); err == nil {
			t.Errorf("%q and %q: %v", r, other, v)
		}
	}
	var b strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&b, `,"K%d":%d`, i, i)
	}
	begin := time.Now()
	_, err := jose.ParseBody([]byte(`{"k200000":1`+b.String()+`}`), 1)
	if took := time.Since(begin); err != nil || took > 5*time.Second {
		t.Errorf("many members: %v after %v", err, took)
	}
}
