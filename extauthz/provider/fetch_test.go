package provider_test

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/chancery-mesh/chancery/extauthz/provider"
	"github.com/chancery-mesh/chancery/internal/idptest"
	"github.com/chancery-mesh/chancery/mesh"
)

// faults of a provider, each with a part of what the operator is told: rows K04,
// K05 and K08 of the attack catalogue.
func faults(good, elsewhere string) map[string]struct {
	spoil func(*idptest.Fake)
	want  string
} {
	keys := func(h http.HandlerFunc) func(*idptest.Fake) {
		return func(f *idptest.Fake) { f.Answer(idptest.Keys, h) }
	}
	discovery := func(issuer, keys string) func(*idptest.Fake) {
		return func(f *idptest.Fake) {
			text := strings.NewReplacer("ISSUER", f.URL, "PASSWORD@", "user:pw@"+strings.TrimPrefix(f.URL, "http://")).
				Replace(fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, issuer, keys))
			f.Answer(idptest.Discovery, idptest.Text(text))
		}
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); _, _ = w.Write([]byte(good)) }
	}
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	}
	return map[string]struct {
		spoil func(*idptest.Fake)
		want  string
	}{
		"500":                         {keys(status(500)), "status 500"},
		"no answer":                   {keys(idptest.Silence), "deadline exceeded"},
		"a byte at a time":            {keys(trickle), "deadline exceeded"},
		"10 MiB":                      {keys(idptest.Text(good + strings.Repeat(" ", 10<<20))), "too large"},
		"a gzip bomb":                 {keys(bomb), "too large"},
		"endless headers":             {keys(manyHeaders), "exceeded"},
		"HTML":                        {keys(idptest.Text("<html>")), "invalid character"},
		"truncated":                   {keys(idptest.Text(good[:len(good)-2])), "unexpected end"},
		"no keys":                     {keys(idptest.Text(`{"keys":[]}`)), "no usable key"},
		"null":                        {keys(idptest.Text("null")), "JWK set"},
		"a redirect to another host":  {keys(redirect(elsewhere)), "redirect refused"},
		"a redirect to metadata":      {keys(redirect("http://169.254.169.254/")), "redirect refused"},
		"a redirect loop":             {keys(redirect(idptest.Keys)), "redirect refused"},
		"a private key":               {keys(idptest.Text(privateJWKS())), "no usable key"},
		"an encryption key":           {keys(idptest.Text(strings.ReplaceAll(good, `"sig"`, `"enc"`))), "no usable key"},
		"a symmetric key":             {keys(idptest.Text(`{"keys":[{"kty":"oct","kid":"1","alg":"HS256","k":"c2VjcmV0LXNlY3JldA"}]}`)), "no usable key"},
		"another issuer":              {discovery("https://other.example", "ISSUER/keys"), "is of issuer"},
		"an issuer with a slash more": {discovery("ISSUER/", "ISSUER/keys"), "is of issuer"},
		"no issuer":                   {discovery("", "ISSUER/keys"), "is of issuer"},
		"no address of keys":          {discovery("ISSUER", ""), "not a URL"},
		"keys in a file":              {discovery("ISSUER", "file:///etc/passwd"), "not a URL"},
		"keys behind a password":      {discovery("ISSUER", "http://PASSWORD@/keys"), "not a URL"},
		"keys of another host":        {discovery("ISSUER", elsewhere), "jwksHosts"},
		"keys in metadata":            {discovery("ISSUER", "http://169.254.169.254/"), "jwksHosts"},
		"no discovery document":       {func(f *idptest.Fake) { f.Answer(idptest.Discovery, http.NotFound) }, "status 404"},
		"discovery that hangs":        {func(f *idptest.Fake) { f.Answer(idptest.Discovery, idptest.Silence) }, "deadline exceeded"},
	}
}

// trickle would take a quarter of an hour.
func trickle(w http.ResponseWriter, r *http.Request) {
	for range 1000 {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(time.Second):
			_, _ = w.Write([]byte(" "))
			w.(http.Flusher).Flush()
		}
	}
}

// packed is made once: a slow machine takes a while.
var packed = sync.OnceValue(func() []byte {
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	_, _ = z.Write(bytes.Repeat([]byte(" "), 10<<20))
	_ = z.Close()
	return body.Bytes()
})

func bomb(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Encoding", "gzip")
	_, _ = w.Write(packed())
}

func manyHeaders(w http.ResponseWriter, _ *http.Request) {
	for i := range 1000 {
		w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1000))
	}
}

// Whatever a provider answers, there is never a key that it did not publish for
// this, the operator is told, and a fetch ends within five seconds.
func TestKeysThatCannotBeFetched(t *testing.T) {
	t.Parallel()
	other := idptest.NewFake(t)
	packed()
	for name, fault := range faults(string(other.JWKS()), other.URL+idptest.Keys) {
		t.Run("cold/"+name, func(t *testing.T) {
			t.Parallel()
			idp := idptest.NewFake(t)
			fault.spoil(idp)
			began := time.Now()
			r := start(t, provider.Config{}, idp.Document())
			r.until("it failed", func() bool { return r.status().Error != "" })
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("it took %v", took)
			}
			if n, err := testutil.GatherAndCount(r.metrics, "chancery_provider_keys_failures_total"); err != nil || n != 1 {
				t.Errorf("no metric to alert on: %v", err)
			}
			if p := r.get("fake"); len(p.GetJwks()) != 0 || p.GetUsableUntil() != nil {
				t.Errorf("provider %v", p)
			}
			if err := r.refuses("fake", idp.ClientToken(t, idptest.JWT)); err == nil {
				t.Error("a token is accepted")
			}
			if got := r.status().Error; !strings.Contains(got, fault.want) || len(got) > 1000 {
				t.Errorf("error %q, want %q", got, fault.want)
			}
		})
		t.Run("warm/"+name, func(t *testing.T) {
			t.Parallel()
			idp := idptest.NewFake(t)
			d := idp.Document()
			d.Refresh = 100 * time.Millisecond
			r := start(t, provider.Config{}, d)
			good := r.withKeys("fake")
			fault.spoil(idp)
			r.until("it failed", func() bool { return r.status().Error != "" })
			if got := r.get("fake"); string(got.GetJwks()) != string(good.GetJwks()) {
				t.Errorf("keys are now %s", got.GetJwks())
			}
			if err := r.refuses("fake", idp.ClientToken(t, idptest.JWT)); err != nil {
				t.Errorf("a token is refused: %v", err)
			}
			for _, path := range []string{idptest.Keys, idptest.Discovery} {
				idp.Answer(path, nil)
			}
			r.until("it recovered", func() bool { return r.status().Error == "" })
		})
	}
}

// Row K07 of the attack catalogue: what a document did not allow is not even
// connected to, however it is spelt.
func TestPrivateProviders(t *testing.T) {
	t.Parallel()
	idp := idptest.NewFake(t)
	port := idp.URL[strings.LastIndex(idp.URL, ":"):]
	for issuer, want := range map[string]string{
		"http://127.0.0.1" + port:              "allowPrivate",
		"http://localhost" + port:              "allowPrivate",
		"http://[::ffff:127.0.0.1]" + port:     "allowPrivate",
		"http://[::ffff:169.254.169.254]":      "never called",
		"http://[64:ff9b::169.254.169.254]:80": "never called",
		"http://0.0.0.0" + port:                "never called",
	} {
		d := idp.Document()
		d.Issuer, d.AllowPrivate = issuer, false
		r := start(t, provider.Config{}, d)
		r.until("it failed", func() bool { return r.status().Error != "" })
		if got := r.status().Error; !strings.Contains(got, want) {
			t.Errorf("%s: %s", issuer, got)
		}
		r.stop()
	}
	if n := idp.Asked(idptest.Discovery); n != 0 {
		t.Errorf("asked %d times", n)
	}
}

// tlsIssuer is a provider with a certificate of authority, for a name, until
// some time.
func tlsIssuer(t *testing.T, authority *tls.Certificate, name string, until time.Time) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, authority.Leaf, key.Public(), authority.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	s := httptest.NewUnstartedServer(mux)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.StartTLS()
	t.Cleanup(s.Close)
	issuer := strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	mux.HandleFunc(idptest.Discovery, idptest.Text(fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, issuer, issuer+idptest.Keys)))
	mux.HandleFunc(idptest.Keys, idptest.Text(string(idptest.NewFake(t).JWKS())))
	return issuer
}

func newAuthority(t *testing.T) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{PrivateKey: key, Leaf: root}
}

func TestCertificatesOfProviders(t *testing.T) {
	t.Parallel()
	authority := newAuthority(t)
	pool := x509.NewCertPool()
	pool.AddCert(authority.Leaf)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	later := time.Now().Add(time.Hour)
	for name, row := range map[string]struct{ issuer, want string }{
		"good":       {tlsIssuer(t, authority, "localhost", later), ""},
		"wrong name": {tlsIssuer(t, authority, "idp.example", later), "not localhost"},
		"expired":    {tlsIssuer(t, authority, "localhost", time.Now().Add(-time.Hour)), "expired"},
		"of nobody":  {tlsIssuer(t, newAuthority(t), "localhost", later), "unknown authority"},
	} {
		d := &mesh.IdentityProvider{Name: "fake", Issuer: row.issuer, Audiences: []string{"a"}, Refresh: time.Second, KeysMaxAge: time.Hour}
		r := start(t, provider.Config{Client: client}, d)
		r.until("it was asked", func() bool { return r.status().Error != "" || !r.status().FetchedAt.IsZero() })
		if s := r.status(); !strings.Contains(s.Error, row.want) || (row.want == "") != (s.Error == "") {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestCheckKeysURL(t *testing.T) {
	t.Parallel()
	const secure, plain = "https://idp.example", "http://idp.example:8080"
	tests := []struct {
		keys, issuer string
		ok           bool
	}{
		{"https://idp.example/keys", secure, true},
		{"https://IDP.example:443/keys", secure, true},
		{"https://idp.example:8443/keys", secure, false},
		{"https://other.example/", secure, false},
		{"https://idp.example.evil.example/", secure, false},
		{"https://keys.example/", secure, true},
		{"https://keys.example:443/", secure, true},
		{"https://keys.example:8443/", secure, false},
		{"https://more.example:8443/", secure, true},
		{"https://more.example/", secure, false},
		{"http://idp.example:8080/keys", plain, true},
		{"https://idp.example:8080/keys", plain, true},
		{"http://keys.example/keys", plain, true},
		{"http://idp.example/keys", secure, false},
		{"http://keys.example/keys", secure, false},
		{"http://169.254.169.254/", secure, false},
		{"ftp://idp.example:8080/keys", plain, false},
		{"file:///etc/passwd", plain, false},
		{"https://user:pw@idp.example/", secure, false},
		{"//idp.example/keys", secure, false},
		{"keys", secure, false},
		{"", secure, false},
	}
	for _, tt := range tests {
		d := &mesh.IdentityProvider{Issuer: tt.issuer, JWKSHosts: []string{"keys.example", "More.example:8443"}}
		if err := provider.CheckKeysURL(tt.keys, d); (err == nil) != tt.ok {
			t.Errorf("CheckKeysURL(%q, %q) = %v", tt.keys, tt.issuer, err)
		}
	}
}

// newJWK returns a new key as a JWK, its private half included if asked for.
func newJWK(kid string, private bool) jwkset.JWKMarshal {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	if !private {
		return idptest.PublicJWK(key.Public(), kid, "ES256")
	}
	jwk, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{
		Marshal:  jwkset.JWKMarshalOptions{Private: true},
		Metadata: jwkset.JWKMetadataOptions{ALG: jwkset.AlgES256, KID: kid, USE: jwkset.UseSig},
	})
	if err != nil {
		panic(err)
	}
	return jwk.Marshal()
}

func encode(keys ...jwkset.JWKMarshal) string {
	data, err := json.Marshal(jwkset.JWKSMarshal{Keys: keys})
	if err != nil {
		panic(err)
	}
	return string(data)
}

func privateJWKS() string { return encode(newJWK("1", true)) }

// What is fetched is cut down to what verifiers need.
func TestPublicKeys(t *testing.T) {
	t.Parallel()
	public, private, encryption := newJWK("public", false), newJWK("private", true), newJWK("encryption", false)
	encryption.USE = jwkset.UseEnc
	public.X5U = "http://169.254.169.254/"
	got, refused, err := provider.PublicKeys([]byte(encode(public, private, encryption)))
	if err != nil || len(refused) != 2 {
		t.Fatalf("refused %v, err %v", refused, err)
	}
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal(got, &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) != 1 || set.Keys[0]["kid"] != "public" {
		t.Fatalf("keys %v", set.Keys)
	}
	for _, name := range []string{"d", "p", "q", "k", "x5u", "x5c"} {
		if _, ok := set.Keys[0][name]; ok {
			t.Errorf("member %s is kept", name)
		}
	}
	if strings.Contains(fmt.Sprint(refused, string(got)), private.D) {
		t.Error("a private half is passed on")
	}
}

// An operator takes a host out of the document that was taken over.
func TestKeysOfAHostThatIsNotNamedAnyMore(t *testing.T) {
	t.Parallel()
	idp := idptest.NewFake(t)
	elsewhere := httptest.NewServer(idptest.Text(string(idp.JWKS())))
	t.Cleanup(elsewhere.Close)
	idp.Answer(idptest.Discovery, idptest.Text(fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, idp.URL, elsewhere.URL+"/keys")))
	named := idp.Document()
	named.JWKSHosts = []string{strings.TrimPrefix(elsewhere.URL, "http://")}
	dir := t.TempDir()
	r := start(t, provider.Config{Dir: dir}, named)
	r.withKeys("fake")
	token := idp.Login(t, idptest.User, idptest.JWT).Access
	not := *named
	not.JWKSHosts = nil
	r.Use([]*mesh.IdentityProvider{&not})
	if err := r.refuses("fake", token); err == nil {
		t.Error("they are used")
	}
	r = start(t, provider.Config{Dir: dir}, &not)
	if err := r.refuses("fake", token); err == nil {
		t.Error("they are used after a restart")
	}
}
