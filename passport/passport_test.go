package passport_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/chancery-mesh/chancery/passport"
)

const (
	domain  = "shop.example"
	gateway = "spiffe://shop.example/gateway/public"
)

var now = time.Unix(1_800_000_000, 0)

func clock() time.Time { return now }

func newEd25519(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newSigner(t testing.TB, key crypto.Signer) *passport.Signer {
	t.Helper()
	s, err := passport.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newVerifier accepts what s signs for gateway.
func newVerifier(t testing.TB, s *passport.Signer) *passport.Verifier {
	t.Helper()
	v, err := passport.NewVerifier(passport.VerifierConfig{
		TrustDomain: domain, Now: clock,
		Keys: passport.KeySet{s.KeyID(): {Owner: gateway, Public: s.Public(), Providers: []string{"staff"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func example() *passport.Passport {
	return &passport.Passport{
		ID: "req-1", Subject: "alice", Scopes: []string{"read", "write"}, Audience: domain, Gateway: gateway,
		IssuedAt: now, ExpiresAt: now.Add(time.Minute), Provider: "staff", Tenant: "acme", Groups: []string{"sales"},
		Client: "web", ClientIP: "192.0.2.1", Authn: "access_token",
	}
}

var ignoreToken = cmpopts.IgnoreUnexported(passport.Passport{})

func TestMintAndVerify(t *testing.T) {
	t.Parallel()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"EdDSA": newEd25519(t), "ES256": ec} {
		for kind, p := range map[string]*passport.Passport{
			"whole": example(),
			"least": {ID: "1", Subject: "s", Audience: domain, Gateway: gateway, IssuedAt: now, ExpiresAt: now.Add(1e9), Provider: "staff"},
			"empty groups": {
				ID: "1", Subject: "s", Audience: domain, Gateway: gateway, IssuedAt: now, ExpiresAt: now.Add(1e9),
				Groups: []string{}, Provider: "staff",
			},
		} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				s := newSigner(t, key)
				token, err := s.Mint(p)
				if err != nil {
					t.Fatal(err)
				}
				got, err := newVerifier(t, s).Verify(token)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(p, got, ignoreToken); diff != "" {
					t.Errorf("verified passport differs (-minted +verified):\n%s", diff)
				}
				if got.Token() != token {
					t.Error("token is not kept")
				}
				inspected, id, err := passport.Inspect(token)
				if err != nil || id != s.KeyID() || !cmp.Equal(p, inspected, ignoreToken) {
					t.Errorf("Inspect: %v, %q, %v", inspected, id, err)
				}
			})
		}
	}
}

func TestMintRefuses(t *testing.T) {
	t.Parallel()
	s := newSigner(t, newEd25519(t))
	for name, change := range map[string]func(*passport.Passport){
		"no subject":        func(p *passport.Passport) { p.Subject = "" },
		"no id":             func(p *passport.Passport) { p.ID = "" },
		"no gateway":        func(p *passport.Passport) { p.Gateway = "" },
		"no audience":       func(p *passport.Passport) { p.Audience = "" },
		"control character": func(p *passport.Passport) { p.Subject = "a\nb" },
		"invalid UTF-8":     func(p *passport.Passport) { p.Tenant = "\xff" },
		"scope with space":  func(p *passport.Passport) { p.Scopes = []string{"read write"} },
		"empty group":       func(p *passport.Passport) { p.Groups = []string{""} },
		"no lifetime":       func(p *passport.Passport) { p.ExpiresAt = p.IssuedAt },
	} {
		p := example()
		change(p)
		if token, err := s.Mint(p); err == nil {
			t.Errorf("%s: minted %s", name, token)
		}
	}
	p := example()
	p.Groups = strings.Split(strings.Repeat("a-group-with-a-long-name ", 400)+"end", " ")
	if _, err := s.Mint(p); !errors.Is(err, passport.ErrTooLarge) {
		t.Errorf("large: %v", err)
	}
}

// forge signs any header and claims.
func forge(key ed25519.PrivateKey, header, claims string) string {
	input := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(claims))
	return input + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(input)))
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	key := newEd25519(t)
	s := newSigner(t, key)
	v := newVerifier(t, s)
	header := fmt.Sprintf(`{"alg":"EdDSA","kid":%q,"typ":"txntoken+jwt"}`, s.KeyID())
	claims := map[string]any{
		"iat": now.Unix(), "exp": now.Unix() + 60, "aud": domain, "txn": "1", "sub": "alice", "req_wl": gateway,
		"tctx": map[string]any{"idp": "staff"},
	}
	with := func(name string, value any) string {
		changed := maps.Clone(claims)
		changed[name] = value
		if value == nil {
			delete(changed, name)
		}
		text, err := json.Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		return forge(key, header, string(text))
	}
	withHeader := func(header string) string {
		text, _ := json.Marshal(claims)
		return forge(key, header, string(text))
	}
	good := with("txn", "1")
	if _, err := v.Verify(good); err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("%q", s.KeyID())
	for name, row := range map[string]struct {
		token string
		want  error
	}{
		"empty":                {"", passport.ErrMalformed},
		"no signature":         {good[:strings.LastIndexByte(good, '.')+1], passport.ErrSignature},
		"changed signature":    {good[:len(good)-4] + "AAAA", passport.ErrSignature},
		"line feed":            {good + "\n", passport.ErrMalformed},
		"too long":             {good + strings.Repeat("A", passport.MaxSize), passport.ErrMalformed},
		"other signer":         {forge(newEd25519(t), header, "{}"), passport.ErrSignature},
		"unknown kid":          {withHeader(`{"alg":"EdDSA","kid":"x","typ":"txntoken+jwt"}`), passport.ErrUnknownKey},
		"no kid":               {withHeader(`{"alg":"EdDSA","typ":"txntoken+jwt"}`), passport.ErrMalformed},
		"kid not a string":     {withHeader(`{"alg":"EdDSA","kid":1,"typ":"txntoken+jwt"}`), passport.ErrMalformed},
		"alg none":             {withHeader(`{"alg":"none","kid":` + id + `,"typ":"txntoken+jwt"}`), passport.ErrSignature},
		"alg of another key":   {withHeader(`{"alg":"ES256","kid":` + id + `,"typ":"txntoken+jwt"}`), passport.ErrSignature},
		"alg HS256":            {withHeader(`{"alg":"HS256","kid":` + id + `,"typ":"txntoken+jwt"}`), passport.ErrSignature},
		"typ JWT":              {withHeader(`{"alg":"EdDSA","kid":` + id + `,"typ":"JWT"}`), passport.ErrMalformed},
		"typ in capitals":      {withHeader(`{"alg":"EdDSA","kid":` + id + `,"typ":"TXNTOKEN+JWT"}`), passport.ErrMalformed},
		"no typ":               {withHeader(`{"alg":"EdDSA","kid":` + id + `}`), passport.ErrMalformed},
		"jwk":                  {withHeader(header[:len(header)-1] + `,"jwk":{}}`), passport.ErrMalformed},
		"unknown member":       {withHeader(header[:len(header)-1] + `,"x5t":"A"}`), passport.ErrMalformed},
		"audience":             {with("aud", "other.example"), passport.ErrAudience},
		"audience list":        {with("aud", []string{domain}), passport.ErrMalformed},
		"audience in capitals": {with("aud", "SHOP.example"), passport.ErrAudience},
		"no audience":          {with("aud", nil), passport.ErrMalformed},
		"other gateway":        {with("req_wl", gateway+"2"), passport.ErrWorkload},
		"no gateway":           {with("req_wl", nil), passport.ErrMalformed},
		"no sub":               {with("sub", nil), passport.ErrMalformed},
		"sub with NUL":         {with("sub", "a\x00"), passport.ErrMalformed},
		"sub a number":         {with("sub", 7), passport.ErrMalformed},
		"no txn":               {with("txn", nil), passport.ErrMalformed},
		"no exp":               {with("exp", nil), passport.ErrMalformed},
		"exp a string":         {with("exp", "1"), passport.ErrMalformed},
		"no iat":               {with("iat", nil), passport.ErrMalformed},
		"lifetime":             {with("exp", now.Unix()+601), passport.ErrLifetime},
		"scope with two spaces": {
			with("scope", "read  write"), passport.ErrMalformed,
		},
		"no provider":          {with("tctx", nil), passport.ErrProvider},
		"another provider":     {with("tctx", map[string]any{"idp": "partners"}), passport.ErrProvider},
		"provider in capitals": {with("tctx", map[string]any{"idp": "Staff"}), passport.ErrProvider},
		"provider a list":      {with("tctx", map[string]any{"idp": []string{"staff"}}), passport.ErrMalformed},
		"scope a list":         {with("scope", []string{"read"}), passport.ErrMalformed},
		"tctx a string":        {with("tctx", "acme"), passport.ErrMalformed},
		"tctx null":            {forge(key, header, `{"tctx":null}`), passport.ErrMalformed},
		"groups a string":      {with("tctx", map[string]any{"groups": "sales"}), passport.ErrMalformed},
		"tenant a number":      {with("tctx", map[string]any{"tenant": 1}), passport.ErrMalformed},
		"tenant with newline": {
			with("tctx", map[string]any{"tenant": "a\nb"}), passport.ErrMalformed,
		},
		"duplicate sub":   {forge(key, header, `{"sub":"alice","sub":"admin"}`), passport.ErrMalformed},
		"claims an array": {forge(key, header, `[]`), passport.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := v.Verify(row.token)
			if !errors.Is(err, row.want) || p != nil {
				t.Errorf("Verify = %v, %v, want %v", p, err, row.want)
			}
		})
	}
}

func TestVerifyAtTheEdges(t *testing.T) {
	t.Parallel()
	s := newSigner(t, newEd25519(t))
	token, err := s.Mint(example())
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		at   time.Time
		skew time.Duration
		want error
	}{
		"last moment with skew":    {now.Add(65*time.Second - 1), 0, nil},
		"expired with skew":        {now.Add(65 * time.Second), 0, passport.ErrExpired},
		"last moment without skew": {now.Add(time.Minute - 1), -1, nil},
		"expired without skew":     {now.Add(time.Minute), -1, passport.ErrExpired},
		"first moment":             {now.Add(-5 * time.Second), 0, nil},
		"issued in the future":     {now.Add(-5*time.Second - 1), 0, passport.ErrNotYetValid},
		"future without skew":      {now.Add(-1), -1, passport.ErrNotYetValid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, err := passport.NewVerifier(passport.VerifierConfig{
				TrustDomain: domain, ClockSkew: row.skew, Now: func() time.Time { return row.at },
				Keys: passport.KeySet{s.KeyID(): {Owner: gateway, Public: s.Public(), Providers: []string{"staff"}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Verify(token); !errors.Is(err, row.want) {
				t.Errorf("err = %v, want %v", err, row.want)
			}
		})
	}
}

func TestKeyBoundsWhatItsPassportsSay(t *testing.T) {
	t.Parallel()
	s := newSigner(t, newEd25519(t))
	token, err := s.Mint(example())
	if err != nil {
		t.Fatal(err)
	}
	tenantless := example()
	tenantless.Tenant = ""
	nobodys, err := s.Mint(tenantless)
	if err != nil {
		t.Fatal(err)
	}
	staff := []string{"partners", "staff"}
	for name, row := range map[string]struct {
		key   passport.Key
		token string
		want  error
	}{
		"all of it":              {passport.Key{Until: now.Add(1), Providers: staff, Tenants: []string{"globex", "acme"}}, token, nil},
		"no end, any tenant":     {passport.Key{Providers: staff}, token, nil},
		"any tenant is none too": {passport.Key{Providers: staff}, nobodys, nil},
		"ended within skew":      {passport.Key{Until: now.Add(1 - 5*time.Second), Providers: staff}, token, nil},
		"ended":                  {passport.Key{Until: now.Add(-5 * time.Second), Providers: staff}, token, passport.ErrKeyExpired},
		"ended in 1970":          {passport.Key{Until: time.Unix(0, 0), Providers: staff}, token, passport.ErrKeyExpired},
		"no provider":            {passport.Key{}, token, passport.ErrProvider},
		"another provider":       {passport.Key{Providers: []string{"staff2", "Staff", "staf"}}, token, passport.ErrProvider},
		"another tenant":         {passport.Key{Providers: staff, Tenants: []string{"acme2"}}, token, passport.ErrTenant},
		"no tenants":             {passport.Key{Providers: staff, Tenants: []string{}}, token, passport.ErrTenant},
		"user without tenant":    {passport.Key{Providers: staff, Tenants: []string{"acme"}}, nobodys, passport.ErrTenant},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := row.key
			key.Owner, key.Public = gateway, s.Public()
			v, err := passport.NewVerifier(passport.VerifierConfig{
				TrustDomain: domain, Now: clock, Keys: passport.KeySet{s.KeyID(): key},
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Verify(row.token); !errors.Is(err, row.want) {
				t.Errorf("err = %v, want %v", err, row.want)
			}
		})
	}
}

// sources changes keys under a verifier.
type sources map[string]passport.Key

func (s sources) Key(id string) (passport.Key, bool) {
	k, ok := s[id]
	return k, ok
}

func TestVerifierRemembers(t *testing.T) {
	t.Parallel()
	signer := newSigner(t, newEd25519(t))
	id, good := signer.KeyID(), passport.Key{Owner: gateway, Public: signer.Public(), Providers: []string{"staff"}}
	at, keys := now, sources{id: good}
	v, err := passport.NewVerifier(passport.VerifierConfig{
		TrustDomain: domain, Now: func() time.Time { return at }, Keys: keys, Remember: 8,
	})
	if err != nil {
		t.Fatal(err)
	}
	token, err := signer.Mint(example())
	if err != nil {
		t.Fatal(err)
	}
	first, err := v.Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	again, err := v.Verify(token)
	if err != nil || again != first || again.Token() != token {
		t.Errorf("not remembered: %v, %v", again, err)
	}
	changed := func(change func(*passport.Key)) passport.Key {
		k := good
		change(&k)
		return k
	}
	for name, row := range map[string]struct {
		change func()
		want   error
	}{
		"key gone":           {func() { delete(keys, id) }, passport.ErrUnknownKey},
		"key is another":     {func() { keys[id] = changed(func(k *passport.Key) { k.Public = newEd25519(t).Public() }) }, passport.ErrSignature},
		"key of another":     {func() { keys[id] = changed(func(k *passport.Key) { k.Owner += "2" }) }, passport.ErrWorkload},
		"key ended":          {func() { keys[id] = changed(func(k *passport.Key) { k.Until = now.Add(-time.Hour) }) }, passport.ErrKeyExpired},
		"provider taken":     {func() { keys[id] = changed(func(k *passport.Key) { k.Providers = nil }) }, passport.ErrProvider},
		"tenant taken":       {func() { keys[id] = changed(func(k *passport.Key) { k.Tenants = []string{"globex"} }) }, passport.ErrTenant},
		"expired":            {func() { at = now.Add(65 * time.Second) }, passport.ErrExpired},
		"clock went back":    {func() { at = now.Add(-time.Minute) }, passport.ErrNotYetValid},
		"signature is other": {func() { token = token[:len(token)-8] + "AAAAAAAA" }, passport.ErrSignature},
	} {
		kept := token
		row.change()
		if _, err := v.Verify(token); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", name, err, row.want)
		}
		token, at, keys[id] = kept, now, good
		if p, err := v.Verify(token); err != nil || p.ID != "req-1" {
			t.Errorf("after %s: %v, %v", name, p, err)
		}
	}
}

func TestPassportEndsWithItsKey(t *testing.T) {
	t.Parallel()
	s := newSigner(t, newEd25519(t))
	for end, want := range map[time.Time]time.Time{
		now.Add(2 * time.Minute):  now.Add(time.Minute),
		now.Add(10 * time.Second): now.Add(10 * time.Second),
	} {
		p := example()
		token, err := s.Until(end).Mint(p)
		if err != nil {
			t.Fatal(err)
		}
		got, err := newVerifier(t, s).Verify(token)
		if err != nil || !got.ExpiresAt.Equal(want) {
			t.Errorf("key until %v: passport until %v, %v", end, got.ExpiresAt, err)
		}
		if !p.ExpiresAt.Equal(now.Add(time.Minute)) {
			t.Error("the caller's Passport was changed")
		}
	}
	if token, err := s.Until(now).Mint(example()); err == nil {
		t.Errorf("a key that has ended minted %s", token)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if _, err := passport.NewSigner(p384); err == nil {
		t.Error("signer with P-384")
	}
	if _, err := passport.NewSigner(nil); err == nil {
		t.Error("signer without key")
	}
	if _, err := passport.NewVerifier(passport.VerifierConfig{Keys: passport.KeySet{}}); err == nil {
		t.Error("verifier without trust domain")
	}
	if _, err := passport.NewVerifier(passport.VerifierConfig{TrustDomain: domain}); err == nil {
		t.Error("verifier without keys")
	}
}

func TestPassportDoesNotPrintItsToken(t *testing.T) {
	t.Parallel()
	s := newSigner(t, newEd25519(t))
	token, _ := s.Mint(example())
	p, err := newVerifier(t, s).Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		fmt.Sprintf("%v %+v %s", p, p, p), fmt.Sprintf("%v %+v", *p, *p), p.LogValue().String(),
	} {
		if strings.Contains(text, token) {
			t.Errorf("token in %q", text)
		}
	}
}

func FuzzVerify(f *testing.F) {
	key := newEd25519(f)
	s := newSigner(f, key)
	v := newVerifier(f, s)
	token, err := s.Mint(example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		p, err := v.Verify(token)
		if err != nil {
			return
		}
		// EdDSA is deterministic: what verifies is what would be minted again.
		if again, err := s.Mint(p); err != nil || again != token {
			t.Errorf("minted again: %s, %v", again, err)
		}
	})
}

// Claims, signed or not, never make Inspect panic, and what it reads can be
// minted again.
func FuzzInspect(f *testing.F) {
	s := newSigner(f, newEd25519(f))
	f.Add(`{"iat":1,"exp":2,"aud":"a","txn":"1","sub":"s","req_wl":"g","tctx":{"idp":"i","groups":["x"]}}`)
	f.Add(`{"iat":1,"exp":2,"aud":"a","txn":"\u003c\"","sub":"é","scope":"a b","req_wl":"g","x":{"y":[null]},` +
		`"tctx":{"bound":{"b":"1","a":"2"},"client":"c"},"rctx":{"req_ip":"::1","acr":"2","amr":["otp"],"auth_time":1.5,"cred_jti":["j","k"],"cred_sub":"s2","cred_iat":0}}`)
	f.Add(`{"iat":1,"exp":2,"aud":"a","txn":"1","sub":"s","req_wl":"g","tctx":{"groups":[],"bound":{}},"rctx":{"amr":[],"cred_jti":[]}}`)
	f.Add(`{"sub":null}`)
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","kid":"k","typ":"txntoken+jwt"}`))
	f.Fuzz(func(t *testing.T, claims string) {
		p, _, err := passport.Inspect(header + "." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".AA")
		if err != nil || p.ExpiresAt.Unix() <= p.IssuedAt.Unix() {
			return
		}
		token, err := s.Mint(p)
		if errors.Is(err, passport.ErrTooLarge) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		again, _, err := passport.Inspect(token)
		for _, t := range []*time.Time{&p.IssuedAt, &p.ExpiresAt, &p.AuthTime, &p.CredentialIssuedAt} {
			*t = t.Truncate(time.Second)
		}
		if diff := cmp.Diff(p, again, ignoreToken); err != nil || diff != "" {
			t.Errorf("%v: %s", err, diff)
		}
	})
}

func BenchmarkMint(b *testing.B) {
	s, p := newSigner(b, newEd25519(b)), example()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Mint(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	s := newSigner(b, newEd25519(b))
	v := newVerifier(b, s)
	token, _ := s.Mint(example())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(token); err != nil {
			b.Fatal(err)
		}
	}
}
