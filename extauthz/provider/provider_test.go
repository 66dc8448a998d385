package provider_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/extauthz/provider"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/idptest"
	"github.com/chancery-mesh/chancery/mesh"
)

// rig is a keyring with who listens to it.
type rig struct {
	*provider.Keyring
	t       testing.TB
	metrics *prometheus.Registry
	stop    context.CancelFunc

	mu   sync.Mutex
	told map[string]*chancerypb.Provider
	// times says how often anything was told.
	times int
}

// start runs a keyring with these documents until the test ends.
func start(t testing.TB, c provider.Config, documents ...*mesh.IdentityProvider) *rig {
	t.Helper()
	r := &rig{t: t, metrics: prometheus.NewRegistry(), told: map[string]*chancerypb.Provider{}}
	c.Registerer = r.metrics
	c.Changed = func(name string, p *chancerypb.Provider) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.told[name] = p
		r.times++
	}
	var err error
	if r.Keyring, err = provider.New(c); err != nil {
		t.Fatal(err)
	}
	r.Use(documents)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	r.stop = func() { cancel(); <-done }
	t.Cleanup(r.stop)
	return r
}

func (r *rig) get(name string) *chancerypb.Provider {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told[name]
}

func (r *rig) tellings() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.times
}

// until waits for something to be so.
func (r *rig) until(what string, is func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("not within 20s: %s; status %+v", what, r.Status())
		}
	}
}

func (r *rig) withKeys(name string) *chancerypb.Provider {
	r.t.Helper()
	r.until("there are keys", func() bool { return len(r.get(name).GetJwks()) > 0 })
	return r.get(name)
}

// status of the first provider.
func (r *rig) status() provider.Status { return r.Status()[0] }

// refuses reports whether a token is refused with what verifiers were told.
func (r *rig) refuses(name, token string) error {
	r.t.Helper()
	v, err := credential.NewVerifier(r.get(name))
	if err != nil {
		return err
	}
	_, err = v.Verify(token, time.Now(), nil)
	return err
}

func TestKeysAreFetched(t *testing.T) {
	t.Parallel()
	idp := idptest.NewFake(t)
	r := start(t, provider.Config{}, idp.Document())
	p := r.withKeys("fake")
	if until := p.GetUsableUntil().AsTime().Sub(p.GetFetchedAt().AsTime()); until != time.Hour {
		t.Errorf("usable for %v", until)
	}
	if err := r.refuses("fake", idp.ClientToken(t, idptest.JWT)); err != nil {
		t.Errorf("token refused: %v", err)
	}
	s := r.status()
	if s.Error != "" || time.Since(s.FetchedAt) > time.Minute || !slices.Equal(s.KeyIDs, []string{"es256-1", "rs256-1"}) {
		t.Errorf("status %+v", s)
	}
}

// Rows K03 and K06 of the attack catalogue, and T08: a new key is known, and one
// that is gone refused, after the next fetch.
func TestRotation(t *testing.T) {
	t.Parallel()
	idp := idptest.NewFake(t)
	r := start(t, provider.Config{}, idp.Document())
	r.withKeys("fake")
	old := idp.ClientToken(t, idptest.JWT)
	idp.Rotate(t, true)
	fresh := idp.ClientToken(t, idptest.JWT)
	if err := r.refuses("fake", fresh); !errors.Is(err, credential.UnknownKey) {
		t.Errorf("before it is fetched: %v", err)
	}
	r.until("the new key is known", func() bool { return r.refuses("fake", fresh) == nil })
	if err := r.refuses("fake", old); err != nil {
		t.Errorf("the old key overlaps: %v", err)
	}
	idp.Rotate(t, false)
	r.until("the old ones are gone", func() bool {
		return errors.Is(r.refuses("fake", old), credential.UnknownKey) && errors.Is(r.refuses("fake", fresh), credential.UnknownKey)
	})
}

// Row K01 of the attack catalogue: tokens with unknown keys ask nobody, and push
// no good key out.
func TestFloodOfUnknownKeys(t *testing.T) {
	t.Parallel()
	idp := idptest.NewFake(t)
	d := idp.Document()
	d.Refresh = time.Hour
	r := start(t, provider.Config{}, d)
	v, err := credential.NewVerifier(r.withKeys("fake"))
	if err != nil {
		t.Fatal(err)
	}
	cache, good := credential.NewCache(1024), idp.ClientToken(t, idptest.JWT)
	_, rest, _ := strings.Cut(good, ".")
	for i := range 50_000 {
		header := fmt.Sprintf(`{"alg":"ES256","typ":"at+jwt","kid":%q}`, rand.Text())
		token := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + rest
		if _, err := cache.Verify(v, token, time.Now(), nil); !errors.Is(err, credential.UnknownKey) {
			t.Fatalf("token %d: %v", i, err)
		}
	}
	if _, err := cache.Verify(v, good, time.Now(), nil); err != nil {
		t.Errorf("a good token: %v", err)
	}
	if n := idp.Asked(idptest.Keys); n != 1 {
		t.Errorf("keys were fetched %d times", n)
	}
}

// What has not changed is neither sent again nor told again.
func TestUnchangedKeys(t *testing.T) {
	t.Parallel()
	idp := idptest.NewFake(t)
	r := start(t, provider.Config{}, idp.Document())
	r.withKeys("fake")
	told := r.tellings()
	var whole atomic.Int32
	idp.Answer(idptest.Keys, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") == "" {
			whole.Add(1)
		}
		w.WriteHeader(http.StatusNotModified)
	})
	first := r.status().FetchedAt
	r.until("they are fetched again", func() bool { return r.status().FetchedAt.After(first) })
	if r.tellings() != told || whole.Load() != 0 || r.status().Error != "" {
		t.Errorf("told %d times more, fetched %d times whole, %+v", r.tellings()-told, whole.Load(), r.status())
	}
	// An operator who asks gets them whole. Nobody who did not ask may say that
	// nothing has changed.
	s, err := r.Refresh(t.Context(), "fake")
	if err != nil || whole.Load() == 0 || len(s) != 1 || !strings.Contains(s[0].Error, "not modified") {
		t.Errorf("fetched %d times whole, %+v, %v", whole.Load(), s, err)
	}
	idp.Answer(idptest.Keys, nil)
	if s, err := r.Refresh(t.Context(), ""); err != nil || s[0].Error != "" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	idp, other := idptest.NewFake(t), idptest.NewFake(t)
	one, two := idp.Document(), other.Document()
	one.Refresh, two.Refresh, two.Name = time.Hour, time.Hour, "other"
	r := start(t, provider.Config{}, one, two)
	r.withKeys("fake")
	r.withKeys("other")
	stolen := idp.ClientToken(t, idptest.JWT)
	idp.Rotate(t, false)
	asked := other.Asked(idptest.Keys)
	s, err := r.Refresh(t.Context(), "fake")
	if err != nil || len(s) != 1 || s[0].Name != "fake" || !slices.Equal(s[0].KeyIDs, []string{"es256-2", "rs256-2"}) {
		t.Errorf("%+v, %v", s, err)
	}
	if err := r.refuses("fake", stolen); !errors.Is(err, credential.UnknownKey) {
		t.Errorf("the stolen key: %v", err)
	}
	if other.Asked(idptest.Keys) != asked {
		t.Error("another provider is asked")
	}
	if s, err := r.Refresh(t.Context(), ""); err != nil || len(s) != 2 {
		t.Errorf("all: %+v, %v", s, err)
	}
	if _, err := r.Refresh(t.Context(), "nobody"); !errors.Is(err, provider.ErrUnknown) {
		t.Errorf("unknown: %v", err)
	}
	idp.Answer(idptest.Keys, idptest.Silence)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Refresh(ctx, "fake"); err != nil {
		t.Errorf("a provider that hangs: %v", err)
	}
}

// Row T07 of the fault catalogue: the last good keys serve, over a restart too,
// for as long as the document says and no longer.
func TestOutage(t *testing.T) {
	t.Parallel()
	idp := idptest.NewFake(t)
	dir := t.TempDir()
	r := start(t, provider.Config{Dir: dir}, idp.Document())
	before := r.withKeys("fake")
	token := idp.ClientToken(t, idptest.JWT)
	r.until("they are saved", func() bool { _, err := os.Stat(filepath.Join(dir, "fake.json")); return err == nil })
	r.stop()
	idp.Rotate(t, false)
	idp.Answer(idptest.Keys, idptest.Text("down"))
	r = start(t, provider.Config{Dir: dir}, idp.Document())
	r.until("it failed", func() bool { return r.status().Error != "" })
	after := r.get("fake")
	if string(after.GetJwks()) != string(before.GetJwks()) || !after.GetFetchedAt().AsTime().Equal(before.GetFetchedAt().AsTime()) {
		t.Errorf("after the restart %v, before %v", after, before)
	}
	if err := r.refuses("fake", token); err != nil {
		t.Errorf("token refused: %v", err)
	}
	if err := r.refuses("fake", idp.ClientToken(t, idptest.JWT)); !errors.Is(err, credential.UnknownKey) {
		t.Errorf("new key: %v", err)
	}
	idp.Answer(idptest.Keys, nil)
	fresh := idp.ClientToken(t, idptest.JWT)
	r.until("it recovers", func() bool { return r.refuses("fake", fresh) == nil })
}

// What is on disk is used only for the provider that it is of, and if it could
// be so.
func TestSavedKeysThatAreNotUsed(t *testing.T) {
	t.Parallel()
	idp := idptest.NewFake(t)
	jwks := string(idp.JWKS())
	idp.Answer(idptest.Discovery, http.NotFound)
	saved := func(issuer string, at time.Time, jwks string) string {
		data, err := json.Marshal(map[string]any{"issuer": issuer, "fetchedAt": at, "jwks": json.RawMessage(jwks), "jwksURI": idp.URL + idptest.Keys})
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	now := time.Now()
	for name, row := range map[string]struct {
		file string
		used bool
	}{
		"good":           {saved(idp.URL, now, jwks), true},
		"another issuer": {saved("https://idp.example", now, jwks), false},
		"of the future":  {saved(idp.URL, now.Add(time.Hour), jwks), false},
		"torn":           {saved(idp.URL, now, jwks)[:100], false},
		"symmetric":      {saved(idp.URL, now, `{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`), false},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "fake.json"), []byte(row.file), 0o600); err != nil {
			t.Fatal(err)
		}
		r := start(t, provider.Config{Dir: dir}, idp.Document())
		if got := len(r.get("fake").GetJwks()) > 0; got != row.used {
			t.Errorf("%s: used %v", name, got)
		}
	}
}

func TestDocumentsThatChange(t *testing.T) {
	t.Parallel()
	idp, other := idptest.NewFake(t), idptest.NewFake(t)
	r := start(t, provider.Config{}, idp.Document())
	before := r.withKeys("fake")
	idp.Answer(idptest.Keys, http.NotFound)

	// Another bound, or another way to fetch, takes no keys away.
	d := idp.Document()
	d.KeysMaxAge, d.JWKSHosts = 10*time.Minute, []string{"keys.example"}
	r.Use([]*mesh.IdentityProvider{d})
	if p := r.get("fake"); string(p.GetJwks()) != string(before.GetJwks()) ||
		p.GetUsableUntil().AsTime().Sub(p.GetFetchedAt().AsTime()) != 10*time.Minute {
		t.Errorf("%v", p)
	}

	// Keys of one issuer are nobody else's.
	other.Answer(idptest.Keys, http.NotFound)
	r.Use([]*mesh.IdentityProvider{other.Document()})
	if p := r.get("fake"); len(p.GetJwks()) != 0 || p.GetUsableUntil() != nil {
		t.Errorf("another issuer has the keys of the first: %v", p)
	}
	other.Answer(idptest.Keys, nil)
	r.withKeys("fake")

	r.Use(nil)
	if r.get("fake") != nil || len(r.Status()) != 0 {
		t.Errorf("not forgotten: %v", r.Status())
	}
	if n, err := testutil.GatherAndCount(r.metrics, "chancery_provider_keys_fetched_timestamp_seconds",
		"chancery_provider_keys_usable_until_timestamp_seconds"); err != nil || n != 0 {
		t.Errorf("metrics still have it: %d, %v", n, err)
	}
}

func TestOneBadIssuerDelaysNoOther(t *testing.T) {
	t.Parallel()
	slow, idp := idptest.NewFake(t), idptest.NewFake(t)
	slow.Answer(idptest.Keys, idptest.Silence)
	d := slow.Document()
	d.Name = "aaa"
	r := start(t, provider.Config{}, d, idp.Document())
	r.until("the slow one is asked", func() bool { return slow.Asked(idptest.Keys) > 0 })
	r.withKeys("fake")
	for range 3 { // and its keys rotate
		idp.Rotate(t, false)
		fresh := idp.ClientToken(t, idptest.JWT)
		r.until("a new key is known", func() bool { return r.refuses("fake", fresh) == nil })
	}
}

// transport answers without a network, and notes when it was asked.
type transport struct {
	mu    sync.Mutex
	asked []time.Time
	keys  string
}

// set makes it answer with other keys, and returns when it was asked since the
// last time before it was set last.
func (tr *transport) set(keys string) []time.Time {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	asked := tr.asked
	tr.asked, tr.keys = slices.Clone(asked[max(0, len(asked)-1):]), keys
	return asked
}

func (tr *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	w := httptest.NewRecorder()
	if strings.HasSuffix(req.URL.Path, "/keys") {
		idptest.Text(tr.keys)(w, req)
	} else {
		tr.asked = append(tr.asked, time.Now())
		idptest.Text(`{"issuer":"https://idp.example","jwks_uri":"https://idp.example/keys"}`)(w, req)
	}
	return w.Result(), nil
}

func TestWhenKeysAreFetched(t *testing.T) {
	t.Parallel()
	good := string(idptest.NewFake(t).JWKS())
	synctest.Test(t, func(t *testing.T) {
		tr := &transport{keys: "down"}
		pauses := func(keys string, during time.Duration) []time.Duration {
			tr.set(keys)
			time.Sleep(during)
			synctest.Wait()
			asked := tr.set(keys)
			var list []time.Duration
			for i := range asked[1:] {
				list = append(list, asked[i+1].Sub(asked[i]).Round(time.Millisecond))
			}
			return list
		}
		d := &mesh.IdentityProvider{Name: "staff", Issuer: "https://idp.example", Refresh: 30 * time.Second, KeysMaxAge: time.Hour}
		r := start(t, provider.Config{Client: &http.Client{Transport: tr}}, d)
		synctest.Wait()
		// Without keys it is tried soon, then ever less.
		s := time.Second
		if got := pauses("down", 100*s); !slices.Equal(got, []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 30 * s, 30 * s}) {
			t.Errorf("without keys: %v", got)
		}
		// With keys it is fetched by the clock: a rotated key is known within 30s,
		// and nobody is asked more often. The second fetch comes sooner, and not
		// at the same time in all replicas.
		pauses(good, 90*s)
		if got := pauses(good, time.Hour); len(got) != 120 || slices.Min(got) != 30*s || slices.Max(got) != 30*s {
			t.Errorf("with keys: %d, from %v to %v", len(got), slices.Min(got), slices.Max(got))
		}
		told := r.tellings()
		pauses(good, time.Hour)
		if n := r.tellings() - told; n < 11 || n > 13 { // every five minutes
			t.Errorf("told %d times in an hour that keys are fresh", n)
		}
		// An outage changes nothing of that, whatever the document's refresh.
		if got := pauses("down", 30*time.Minute); len(got) != 60 || slices.Min(got) != 30*s {
			t.Errorf("in an outage: %d, from %v", len(got), slices.Min(got))
		}
		slow := *d
		slow.Refresh = time.Hour
		r.Use([]*mesh.IdentityProvider{&slow})
		if got := pauses("down", 20*time.Minute); slices.Max(got[1:]) != provider.MaxRetry {
			t.Errorf("in an outage, hourly: %v", got)
		}
	})
}

// Where a provider is asked about tokens, it says itself where, unless the
// document does.
func TestIntrospectionEndpoint(t *testing.T) {
	t.Parallel()
	idp := idptest.NewFake(t)
	discover := func(endpoint string) {
		body, err := json.Marshal(map[string]string{"issuer": idp.URL, "jwks_uri": idp.URL + idptest.Keys, "introspection_endpoint": endpoint})
		if err != nil {
			t.Fatal(err)
		}
		idp.Answer(idptest.Discovery, idptest.Text(string(body)))
	}
	asked := func(opaque bool, endpoint string) *mesh.IdentityProvider {
		d := idp.Document()
		d.Opaque, d.IDTokenAudiences = opaque, nil
		d.Introspection = &mesh.Introspection{Endpoint: endpoint, Client: idptest.APIClient, Secret: "api", Cache: time.Minute}
		return d
	}
	dir := t.TempDir()
	r := start(t, provider.Config{Dir: dir}, asked(true, ""))
	is := func(endpoint string) func() bool {
		return func() bool { return r.get("fake").GetIntrospection().GetEndpoint() == endpoint }
	}
	r.until("it is discovered", is(idp.URL+idptest.Introspection))
	if p := r.get("fake"); len(p.GetJwks()) != 0 || idp.Asked(idptest.Keys) != 0 || !p.GetOpaque() {
		t.Errorf("keys of a provider that needs none: %v", p)
	}
	discover(idp.URL + "/elsewhere")
	r.until("it moved", is(idp.URL+"/elsewhere"))

	// It is kept, and judged again.
	r.stop()
	idp.Answer(idptest.Discovery, http.NotFound)
	r = start(t, provider.Config{Dir: dir}, asked(true, ""))
	if !is(idp.URL + "/elsewhere")() {
		t.Errorf("after a restart: %v", r.get("fake"))
	}

	// Another host would get the secret. Keys are fetched even so.
	discover("http://169.254.169.254/introspect")
	r.Use([]*mesh.IdentityProvider{asked(false, "")})
	r.withKeys("fake")
	r.until("it is refused", func() bool { return is("")() && strings.Contains(r.status().Error, "introspection.endpoint") })

	// What the document says needs no discovery.
	before := idp.Asked(idptest.Discovery)
	r.Use([]*mesh.IdentityProvider{asked(true, "https://idp.example/introspect")})
	if s, err := r.Refresh(t.Context(), "fake"); err != nil || s[0].Error != "" || !s[0].Opaque || !is("https://idp.example/introspect")() {
		t.Errorf("%+v, %v, %v", s, err, r.get("fake"))
	}
	if n := idp.Asked(idptest.Discovery); n > before+1 { // one may be on its way
		t.Errorf("asked %d times more", n-before)
	}
}
