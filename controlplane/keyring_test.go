package controlplane_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/jwkset"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xdstest"
	"github.com/chancery-mesh/chancery/mesh"
)

// rsaKey returns a new key as a JWK, its private half included if asked for.
func rsaKey(t *testing.T, kid string, private bool) jwkset.JWKMarshal {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	var k any = &key.PublicKey
	if private {
		k = key
	}
	jwk, err := jwkset.NewJWKFromKey(k, jwkset.JWKOptions{
		Marshal:  jwkset.JWKMarshalOptions{Private: private},
		Metadata: jwkset.JWKMetadataOptions{ALG: jwkset.AlgRS256, KID: kid, USE: jwkset.UseSig},
	})
	if err != nil {
		t.Fatal(err)
	}
	return jwk.Marshal()
}

func jwks(t *testing.T, keys ...jwkset.JWKMarshal) string {
	t.Helper()
	data, err := json.Marshal(jwkset.JWKSMarshal{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// issuer is an identity provider whose answers can be changed.
type issuer struct {
	*httptest.Server
	discovery, keys atomic.Pointer[http.HandlerFunc]
	fetches         atomic.Int32
}

func answer(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
}

// newIssuer returns one that is well, with some keys.
func newIssuer(t *testing.T, keys string) *issuer {
	t.Helper()
	i := &issuer{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) { (*i.discovery.Load())(w, r) })
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, r *http.Request) {
		i.fetches.Add(1)
		(*i.keys.Load())(w, r)
	})
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	i.discover(i.URL, i.URL+"/keys")
	i.serve(answer(keys))
	return i
}

func (i *issuer) discover(issuer, keys string) {
	h := answer(fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, issuer, keys))
	i.discovery.Store(&h)
}

func (i *issuer) serve(h http.HandlerFunc) { i.keys.Store(&h) }

// withProvider returns documents whose gateway takes access tokens of an
// issuer.
func withProvider(issuer string, more ...string) map[string]string {
	docs := shop()
	docs["public"] = publicYAML + "authenticate: {accessToken: staff}\n"
	docs["staff"] = fmt.Sprintf("kind: IdentityProvider\nname: staff\nissuer: %s\nallowHTTP: true\naudiences: [shop-api]\n", issuer) +
		strings.Join(more, "\n")
	return docs
}

// provider subscribes to the provider as the gateway.
func (r *rig) provider() (*xdstest.Client, *chancerypb.Provider) {
	r.t.Helper()
	c := r.open(gateway)
	c.Subscribe(providerType, "staff")
	return c, nextProvider(r.t, c)
}

func nextProvider(t testing.TB, c *xdstest.Client) *chancerypb.Provider {
	t.Helper()
	var p chancerypb.Provider
	decode(t, c.NextACK(), &p)
	return &p
}

// withKeys waits for a provider's keys.
func withKeys(t *testing.T, c *xdstest.Client, p *chancerypb.Provider) *chancerypb.Provider {
	t.Helper()
	for len(p.GetJwks()) == 0 {
		p = nextProvider(t, c)
	}
	return p
}

func TestKeysAreFetched(t *testing.T) {
	t.Parallel()
	idp := newIssuer(t, jwks(t, rsaKey(t, "1", false)))
	r := start(t, withProvider(idp.URL, "keysMaxAge: 1h\n"))
	c, p := r.provider()
	p = withKeys(t, c, p)
	if set, _, err := credential.ParseKeySet(p.GetJwks()); err != nil || set == nil {
		t.Errorf("verifiers cannot read the keys: %v", err)
	}
	fetched, until := p.GetFetchedAt().AsTime(), p.GetUsableUntil().AsTime()
	if time.Since(fetched) > time.Minute || until.Sub(fetched) != time.Hour {
		t.Errorf("fetched at %v, usable until %v", fetched, until)
	}
	if p.GetIssuer() != idp.URL || p.GetAudiences()[0] != "shop-api" || p.GetClaims().GetUser() != "sub" {
		t.Errorf("provider %v", p)
	}
	s := r.status().Providers
	if len(s) != 1 || s[0].Error != "" || s[0].UsableUntil.Sub(s[0].FetchedAt) != time.Hour {
		t.Errorf("status %+v", s)
	}
	if r.metric("chancery_provider_keys_fetched_timestamp_seconds") < float64(time.Now().Add(-time.Minute).Unix()) {
		t.Error("metrics do not show it")
	}
}

// Whatever an issuer answers, there is never a key that it did not publish for
// this, and it is tried again.
func TestKeysThatCannotBeFetched(t *testing.T) {
	t.Parallel()
	good := jwks(t, rsaKey(t, "1", false))
	elsewhere := httptest.NewServer(answer(good))
	t.Cleanup(elsewhere.Close)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(bytes.Repeat([]byte(" "), 10<<20))
	_ = z.Close()
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); _, _ = w.Write([]byte(good)) }
	}
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	}
	tests := map[string]func(*issuer){
		"500":    func(i *issuer) { i.serve(status(500)) },
		"10 MiB": func(i *issuer) { i.serve(answer(good + strings.Repeat(" ", 10<<20))) },
		"a gzip bomb": func(i *issuer) {
			i.serve(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				_, _ = w.Write(bomb.Bytes())
			})
		},
		"HTML":                       func(i *issuer) { i.serve(answer("<html>")) },
		"truncated":                  func(i *issuer) { i.serve(answer(good[:len(good)-2])) },
		"no keys":                    func(i *issuer) { i.serve(answer(`{"keys":[]}`)) },
		"null":                       func(i *issuer) { i.serve(answer("null")) },
		"a redirect to another host": func(i *issuer) { i.serve(redirect(elsewhere.URL)) },
		"a redirect loop":            func(i *issuer) { i.serve(redirect("/keys")) },
		"a symmetric key": func(i *issuer) {
			i.serve(answer(`{"keys":[{"kty":"oct","kid":"1","alg":"HS256","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"}]}`))
		},
		"a private key":               func(i *issuer) { i.serve(answer(jwks(t, rsaKey(t, "1", true)))) },
		"an encryption key":           func(i *issuer) { i.serve(answer(strings.Replace(good, `"sig"`, `"enc"`, 1))) },
		"another issuer":              func(i *issuer) { i.discover("https://other.example", i.URL+"/keys") },
		"an issuer with a slash more": func(i *issuer) { i.discover(i.URL+"/", i.URL+"/keys") },
		"no address of keys":          func(i *issuer) { i.discover(i.URL, "") },
		"keys in a file":              func(i *issuer) { i.discover(i.URL, "file:///etc/passwd") },
		"keys behind a password":      func(i *issuer) { i.discover(i.URL, strings.Replace(i.URL, "//", "//user:pw@", 1)+"/keys") },
		"no discovery document":       func(i *issuer) { h := status(404); i.discovery.Store(&h) },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			idp := newIssuer(t, good)
			spoil(idp)
			r := start(t, withProvider(idp.URL))
			r.until("it failed", func() bool { return r.metric("chancery_provider_keys_failures_total") > 0 })
			c, p := r.provider()
			if len(p.GetJwks()) != 0 || p.GetUsableUntil() != nil {
				t.Errorf("provider %v", p)
			}
			if s := r.status().Providers; s[0].Error == "" || !s[0].FetchedAt.IsZero() {
				t.Errorf("status %+v", s)
			}
			if name == "no keys" { // one is enough to see it recover
				idp.serve(answer(good))
				withKeys(t, c, p)
				if s := r.status().Providers; s[0].Error != "" {
					t.Errorf("status %+v", s)
				}
			}
		})
	}
}

func TestCheckKeysURL(t *testing.T) {
	t.Parallel()
	const secure, plain = "https://idp.example", "http://idp.example"
	tests := []struct {
		keys, issuer string
		ok           bool
	}{
		{"https://idp.example/keys", secure, true},
		{"https://keys.example/", secure, true},
		{"https://idp.example/keys", plain, true},
		{"http://idp.example/keys", plain, true},
		{"http://idp.example/keys", secure, false},
		{"http://169.254.169.254/", secure, false},
		{"ftp://idp.example/keys", plain, false},
		{"file:///etc/passwd", plain, false},
		{"https://user:pw@idp.example/", secure, false},
		{"//idp.example/keys", secure, false},
		{"keys", secure, false},
		{"", secure, false},
	}
	for _, tt := range tests {
		if err := controlplane.CheckKeysURL(tt.keys, tt.issuer); (err == nil) != tt.ok {
			t.Errorf("CheckKeysURL(%q, %q) = %v", tt.keys, tt.issuer, err)
		}
	}
}

// What is fetched is cut down to what verifiers need.
func TestPublicKeys(t *testing.T) {
	t.Parallel()
	public, private, encryption := rsaKey(t, "public", false), rsaKey(t, "private", true), rsaKey(t, "encryption", false)
	encryption.USE = jwkset.UseEnc
	public.X5U = "http://169.254.169.254/"
	got, refused, err := controlplane.PublicKeys([]byte(jwks(t, public, private, encryption)))
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
	for _, secret := range []string{private.D, private.P} {
		if strings.Contains(fmt.Sprint(refused, string(got)), secret) {
			t.Error("a private half is passed on")
		}
	}
}

func TestKeysOutliveTheIssuerAndTheProcess(t *testing.T) {
	t.Parallel()
	idp := newIssuer(t, jwks(t, rsaKey(t, "1", false)))
	r := start(t, withProvider(idp.URL))
	c, p := r.provider()
	before := withKeys(t, c, p)
	r.until("they are saved", func() bool { return r.status().Providers[0].Error == "" })
	r.stop()
	idp.serve(answer("down"))
	r.start()
	r.until("it failed", func() bool { return r.metric("chancery_provider_keys_failures_total") > 0 })
	_, p = r.provider()
	if string(p.GetJwks()) != string(before.GetJwks()) || !p.GetFetchedAt().AsTime().Equal(before.GetFetchedAt().AsTime()) {
		t.Errorf("after the restart: fetched at %v, before at %v", p.GetFetchedAt().AsTime(), before.GetFetchedAt().AsTime())
	}
	// The document's bound holds for them.
	r.write("staff", withProvider(idp.URL, "keysMaxAge: 10m\n")["staff"])
	r.until("it does", func() bool {
		s := r.status().Providers[0]
		return s.UsableUntil.Sub(s.FetchedAt) == 10*time.Minute
	})
	// Keys of one issuer are nobody else's.
	other := newIssuer(t, "down")
	r.write("staff", withProvider(other.URL)["staff"])
	r.until("they are gone", func() bool { s := r.status().Providers[0]; return s.Issuer == other.URL && s.FetchedAt.IsZero() })
	_, p = r.provider()
	if len(p.GetJwks()) != 0 {
		t.Error("another issuer has the keys of the first")
	}
}

func TestOneBadIssuerDelaysNoOther(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	slow := newIssuer(t, "")
	slow.serve(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(release) })
	idp := newIssuer(t, jwks(t, rsaKey(t, "1", false)))
	docs := withProvider(idp.URL)
	docs["aaa"] = strings.NewReplacer("staff", "aaa", idp.URL, slow.URL).Replace(docs["staff"])
	r := start(t, docs)
	r.until("the slow one is asked", func() bool { return slow.fetches.Load() > 0 })
	c, p := r.provider()
	withKeys(t, c, p)
}

func TestRemovedProviderIsForgotten(t *testing.T) {
	t.Parallel()
	idp := newIssuer(t, jwks(t, rsaKey(t, "1", false)))
	r := start(t, withProvider(idp.URL))
	c, p := r.provider()
	withKeys(t, c, p)
	r.write("public", publicYAML)
	r.remove("staff")
	r.until("it is forgotten", func() bool { return len(r.status().Providers) == 0 })
	if r.metric("chancery_provider_keys_fetched_timestamp_seconds") != 0 {
		t.Error("metrics still have it")
	}
}

// transport answers without a network, and notes when it was asked.
type transport struct {
	start time.Time
	asked []time.Duration
	body  func() string
}

func (tr *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if strings.HasSuffix(req.URL.Path, "/keys") {
		answer(tr.body())(w, req)
	} else {
		tr.asked = append(tr.asked, time.Since(tr.start))
		answer(`{"issuer":"https://idp.example","jwks_uri":"https://idp.example/keys"}`)(w, req)
	}
	return w.Result(), nil
}

func TestWhenKeysAreFetched(t *testing.T) {
	t.Parallel()
	good := jwks(t, rsaKey(t, "1", false))
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tr := &transport{start: time.Now()}
		tr.body = func() string {
			if len(tr.asked) < 4 { // three fail
				return "down"
			}
			return good
		}
		ctx, cancel := context.WithCancel(t.Context())
		keyring := controlplane.NewKeyring(dir, &http.Client{Transport: tr})
		keyring.Use(&mesh.IdentityProvider{Name: "staff", Issuer: "https://idp.example", KeysMaxAge: time.Hour})
		go keyring.Run(ctx)
		time.Sleep(30 * time.Minute)
		cancel()
		synctest.Wait()
		want := []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second}
		for len(want) < len(tr.asked) {
			want = append(want, controlplane.KeysEvery)
		}
		if len(tr.asked) < 8 {
			t.Fatalf("asked at %v", tr.asked)
		}
		for i := 1; i < len(tr.asked); i++ {
			pause := tr.asked[i] - tr.asked[i-1]
			if pause < want[i]-want[i]/10 || pause > want[i]+want[i]/10 {
				t.Errorf("pause %d is %v, want about %v", i, pause, want[i])
			}
		}
	})
}
