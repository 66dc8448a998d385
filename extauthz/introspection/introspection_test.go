package introspection_test

import (
	"context"
	"crypto/rand"
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
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/extauthz/introspection"
	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/idptest"
)

const address = "192.0.2.1"

// rig is an introspector with a provider to ask.
type rig struct {
	*introspection.Introspector
	t        testing.TB
	idp      *idptest.Fake
	provider *chancerypb.Provider
	metrics  *prometheus.Registry
	secrets  string
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, idp: idptest.NewFake(t), metrics: prometheus.NewRegistry(), secrets: t.TempDir()}
	r.secret(idptest.Secret(idptest.APIClient)+"\n", 0o600)
	r.provider = translate.Provider(r.idp.Document())
	r.provider.Opaque = true
	r.provider.Introspection.Endpoint = r.idp.URL + idptest.Introspection
	var err error
	r.Introspector, err = introspection.New(introspection.Config{Secret: introspection.Secrets(r.secrets), Registerer: r.metrics})
	if err != nil {
		t.Fatal(err)
	}
	introspection.SetTimeout(r.Introspector, 20*time.Second) // a crowded machine
	return r
}

func (r *rig) secret(text string, mode os.FileMode) {
	r.t.Helper()
	path := filepath.Join(r.secrets, idptest.APIClient+".secret")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		r.t.Fatal(err)
	}
}

// change asks by another version of the provider from now on.
func (r *rig) change(change func(*chancerypb.Provider)) {
	r.provider = proto.CloneOf(r.provider)
	change(r.provider)
}

func (r *rig) ask(token string) (*credential.Identity, error) { return r.askAt(token, time.Now()) }

func (r *rig) askAt(token string, now time.Time) (*credential.Identity, error) {
	r.t.Helper()
	id, err := r.Introspect(r.t.Context(), r.provider, token, address, now)
	if (id == nil) == (err == nil) {
		r.t.Errorf("both or none: %v, %v", id, err)
	}
	for _, secret := range []string{idptest.Secret(idptest.APIClient), token} {
		if err != nil && len(secret) > 8 && strings.Contains(err.Error(), secret) {
			r.t.Errorf("the error has a secret in it: %v", err)
		}
	}
	return id, err
}

func (r *rig) asked() int { return r.idp.Asked(idptest.Introspection) }

func (r *rig) counted(result string) int {
	families, err := r.metrics.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "chancery_introspections_total" && m.GetLabel()[1].GetValue() == result {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return 0
}

func TestIntrospect(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	token := r.idp.Login(t, idptest.User, idptest.Opaque).Access
	for range 3 {
		id, err := r.ask(token)
		if err != nil {
			t.Fatal(err)
		}
		// Row K10 of the attack catalogue: what is remembered is what the token
		// says, for each rule to judge.
		if id.User != idptest.User || id.Tenant != idptest.Tenant || id.Client != idptest.WebClient ||
			!slices.Equal(id.Groups, []string{idptest.Group}) || !slices.Equal(id.Scopes, []string{idptest.Scope}) {
			t.Errorf("identity %+v", id)
		}
	}
	if r.asked() != 1 || r.counted("active") != 1 || r.counted("active_remembered") != 2 {
		t.Errorf("asked %d times", r.asked())
	}
	for range 2 {
		if _, err := r.ask("unknown"); !errors.Is(err, credential.Inactive) {
			t.Errorf("an unknown token: %v", err)
		}
	}
	if r.asked() != 2 || r.counted("inactive_remembered") != 1 {
		t.Errorf("asked %d times", r.asked())
	}
}

// Row K12 of the attack catalogue, and what cannot be a token at all, about
// which nobody is asked.
func TestOtherTokens(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	token := r.idp.Login(t, idptest.User, idptest.Opaque).Access
	if _, err := r.ask(token); err != nil {
		t.Fatal(err)
	}
	others := []string{token[:len(token)-1], token + "x", token + "=", strings.ToLower(token), token + token}
	for _, other := range others {
		if _, err := r.ask(other); !errors.Is(err, credential.Inactive) {
			t.Errorf("%q: %v", other, err)
		}
	}
	if n := r.asked(); n != 1+len(others) {
		t.Errorf("asked %d times", n)
	}
	asked := r.asked()
	for _, none := range []string{"", "=", "a b", "a\n", "a=b", "a&token=b", "a\x00", "ü", strings.Repeat("a", credential.MaxTokenSize+1)} {
		if _, err := r.ask(none); !errors.Is(err, credential.Malformed) {
			t.Errorf("%.20q: %v", none, err)
		}
	}
	if r.asked() != asked {
		t.Error("the provider is asked about what is no token")
	}
}

// An answer is believed for the cache's time, and no longer than the token
// lives.
func TestHowLongAnswersAreBelieved(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	token := r.idp.Login(t, idptest.User, idptest.Opaque).Access
	now := time.Now()
	cache := r.provider.GetIntrospection().GetCache().AsDuration()
	if _, err := r.askAt(token, now); err != nil {
		t.Fatal(err)
	}
	r.idp.Revoke(t, token)
	if _, err := r.askAt(token, now.Add(cache)); err != nil {
		t.Errorf("within the cache's time: %v", err)
	}
	if _, err := r.askAt(token, now.Add(cache+1)); !errors.Is(err, credential.Inactive) {
		t.Errorf("after it: %v", err)
	}

	r.idp.Activate("short", map[string]any{"sub": "alice", "aud": idptest.Audience, "exp": now.Unix() - 28})
	if _, err := r.askAt("short", now); err != nil { // within the clock's skew
		t.Fatal(err)
	}
	asked := r.asked()
	if _, err := r.askAt("short", now.Add(3*time.Second)); !errors.Is(err, credential.Expired) || r.asked() != asked+1 {
		t.Errorf("after the token's end: %v", err)
	}

	r.idp.Activate("endless", map[string]any{"sub": "alice", "aud": idptest.Audience, "exp": nil})
	if _, err := r.askAt("endless", now); err != nil {
		t.Fatal(err)
	}
	r.idp.Revoke(t, "endless")
	if _, err := r.askAt("endless", now.Add(cache+1)); !errors.Is(err, credential.Inactive) {
		t.Errorf("a token without an end: %v", err)
	}

	// A bad one is not bad for ever: replicas of a provider may disagree.
	late := r.idp.Login(t, idptest.User, idptest.Opaque).Access
	r.idp.Revoke(t, late)
	if _, err := r.askAt(late, now); !errors.Is(err, credential.Inactive) {
		t.Fatal(err)
	}
	r.idp.Activate(late, map[string]any{"sub": "alice", "aud": idptest.Audience})
	if _, err := r.askAt(late, now.Add(11*time.Second)); err != nil {
		t.Errorf("a token that came late: %v", err)
	}

	r.change(func(p *chancerypb.Provider) { p.Introspection.Cache = durationpb.New(0) })
	asked = r.asked()
	for range 3 {
		if _, err := r.askAt(late, now); err != nil {
			t.Error(err)
		}
	}
	if r.asked() != asked+3 {
		t.Error("remembered for no time")
	}
}

// Row K09 of the attack catalogue: what an answer says of the token denies it,
// and what it says of the provider is never dressed as that.
func TestAnswers(t *testing.T) {
	t.Parallel()
	const rest = `"token_type":"Bearer","aud":"shop-api","sub":"alice"`
	elsewhere := idptest.NewFake(t)
	unavailable := introspection.ErrUnavailable
	text, status := idptest.Text, func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = w.Write([]byte(`{"active":true,` + rest + `}`))
		}
	}
	for name, row := range map[string]struct {
		answer http.HandlerFunc
		want   error
	}{
		"good":              {text(`{"active":true,` + rest + `}`), nil},
		"inactive":          {text(`{"active":false}`), credential.Inactive},
		"a string":          {text(`{"active":"true",` + rest + `}`), credential.Inactive},
		"a number":          {text(`{"active":1,` + rest + `}`), credential.Inactive},
		"nothing in it":     {text(`{}`), credential.Inactive},
		"expired":           {text(`{"active":true,"exp":1,` + rest + `}`), credential.Expired},
		"another issuer":    {text(`{"active":true,"iss":"https://other.example",` + rest + `}`), credential.WrongIssuer},
		"another audience":  {text(`{"active":true,"token_type":"Bearer","aud":"other","sub":"alice"}`), credential.WrongAudience},
		"a refresh token":   {text(`{"active":true,"aud":"shop-api","sub":"alice"}`), credential.WrongType},
		"active twice":      {text(`{"active":false,"active":true,` + rest + `}`), unavailable},
		"HTML":              {text(`<html>`), unavailable},
		"nothing":           {text(``), unavailable},
		"a list":            {text(`[{"active":true,` + rest + `}]`), unavailable},
		"too large":         {text(`{"active":true,"a":"` + strings.Repeat("a", 20<<10) + `",` + rest + `}`), unavailable},
		"far too large":     {text(`{"active":true,"a":"` + strings.Repeat("a", 2<<20) + `",` + rest + `}`), unavailable},
		"201":               {status(201), unavailable},
		"304":               {status(304), unavailable},
		"400":               {status(400), unavailable},
		"401":               {status(401), unavailable},
		"403":               {status(403), unavailable},
		"429":               {status(429), unavailable},
		"500":               {status(500), unavailable},
		"a redirect":        {http.RedirectHandler("/introspect", http.StatusTemporaryRedirect).ServeHTTP, unavailable},
		"a redirect abroad": {http.RedirectHandler(elsewhere.URL+"/introspect", http.StatusTemporaryRedirect).ServeHTTP, unavailable},
		"no answer":         {idptest.Silence, unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.idp.Answer(idptest.Introspection, row.answer)
			if name == "no answer" {
				introspection.SetTimeout(r.Introspector, time.Second)
			}
			if _, err := r.ask("opaque-token"); !errors.Is(err, row.want) {
				t.Errorf("%v, want %v", err, row.want)
			}
			// Neither a failure nor what it made of the token stays.
			if errors.Is(row.want, unavailable) {
				r.idp.Answer(idptest.Introspection, text(`{"active":true,`+rest+`}`))
				_, err := r.ask("opaque-token")
				for try := 0; errors.Is(err, context.DeadlineExceeded) && try < 4; try++ { // a crowded machine
					_, err = r.ask("opaque-token")
				}
				if err != nil {
					t.Errorf("afterwards: %v", err)
				}
			}
		})
	}
	t.Cleanup(func() {
		if elsewhere.Asked(idptest.Introspection) != 0 {
			t.Error("secret and token were sent to another host")
		}
	})
}

// Row T07 of the fault catalogue: what is remembered serves until its end, then
// nothing is allowed; the provider is left alone while it is down, and asked
// again soon after it is back.
func TestOutage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	known, fresh := r.idp.Login(t, idptest.User, idptest.Opaque).Access, r.idp.Login(t, idptest.User, idptest.Opaque).Access
	if _, err := r.ask(known); err != nil {
		t.Fatal(err)
	}
	r.idp.Answer(idptest.Introspection, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	for range 100 {
		if _, err := r.ask(known); err != nil {
			t.Fatalf("a token that is remembered: %v", err)
		}
		if _, err := r.ask(fresh); !errors.Is(err, introspection.ErrUnavailable) {
			t.Fatalf("a token that is not: %v", err)
		}
	}
	cache := r.provider.GetIntrospection().GetCache().AsDuration()
	if _, err := r.askAt(known, time.Now().Add(cache+time.Second)); !errors.Is(err, introspection.ErrUnavailable) {
		t.Errorf("after the cache's time: %v", err)
	}
	if n := r.asked(); n > 6 { // it answered five times wrongly, then the circuit opened
		t.Errorf("a provider that is down was asked %d times", n)
	}
	r.idp.Answer(idptest.Introspection, nil)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		_, err := r.ask(fresh)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within 30s: %v", err)
		}
	}
}

func TestOneCallForManyAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	token := r.idp.Login(t, idptest.User, idptest.Opaque).Access
	release := make(chan struct{})
	r.idp.Answer(idptest.Introspection, func(w http.ResponseWriter, _ *http.Request) {
		<-release
		idptest.Text(`{"active":true,"token_type":"Bearer","aud":"shop-api","sub":"alice"}`)(w, nil)
	})
	impatient, giveUp := context.WithCancel(t.Context())
	gaveUp := make(chan error, 1)
	go func() {
		_, err := r.Introspect(impatient, r.provider, token, address, time.Now())
		gaveUp <- err
	}()
	for r.asked() == 0 {
		time.Sleep(time.Millisecond)
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, err := r.ask(token); err != nil {
				t.Error(err)
			}
		})
	}
	// The first one's patience is not the others'.
	giveUp()
	if err := <-gaveUp; !errors.Is(err, introspection.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up: %v", err)
	}
	close(release)
	all.Wait()
	if r.asked() != 1 {
		t.Errorf("asked %d times", r.asked())
	}
}

// Row K13 of the attack catalogue: a flood of random tokens from one address
// asks the provider little, and costs good tokens nothing.
func TestFloodOfRandomTokens(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good := r.idp.Login(t, idptest.User, idptest.Opaque).Access
	if _, err := r.ask(good); err != nil {
		t.Fatal(err)
	}
	const workers, each = 8, 500
	began := time.Now()
	var flood sync.WaitGroup
	for range workers {
		flood.Go(func() {
			for range each {
				_, err := r.Introspect(t.Context(), r.provider, rand.Text(), "198.51.100.7", time.Now())
				if !errors.Is(err, credential.Inactive) && !errors.Is(err, introspection.ErrUnavailable) {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		if _, err := r.ask(good); err != nil {
			t.Errorf("a token that is remembered: %v", err)
		}
		fresh := r.idp.Login(t, idptest.User, idptest.Opaque).Access
		if _, err := r.ask(fresh); err != nil {
			t.Errorf("a new token of somebody else's: %v", err)
		}
	}
	flood.Wait()
	allowed := 50 + int(time.Since(began)/(100*time.Millisecond)) + 2
	if n := r.asked() - 21; n > allowed {
		t.Errorf("the flood asked %d times, want at most %d", n, allowed)
	}
	if n := r.counted("throttled"); n < workers*each/2 {
		t.Errorf("only %d of the flood are throttled", n)
	}
	// Hosts of an IPv6 network are one.
	for i := range 60 {
		_, _ = r.Introspect(t.Context(), r.provider, rand.Text(), fmt.Sprintf("2001:db8::%x", i), time.Now())
	}
	if _, err := r.Introspect(t.Context(), r.provider, rand.Text(), "2001:db8::ffff", time.Now()); !errors.Is(err, introspection.ErrUnavailable) {
		t.Errorf("another host of the network: %v", err)
	}
}

// From many addresses, a flood is held to what the document allows.
func TestRate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.change(func(p *chancerypb.Provider) { p.Introspection.Rate = 10 })
	began := time.Now()
	for i := range 500 {
		_, _ = r.Introspect(t.Context(), r.provider, rand.Text(), fmt.Sprintf("10.0.%d.%d", i/250, i%250), time.Now())
	}
	if n, allowed := r.asked(), 10+int(10*time.Since(began).Seconds())+1; n > allowed {
		t.Errorf("asked %d times, want at most %d", n, allowed)
	}
	// Neither did it fail, nor is anybody's token bad for that.
	if _, err := r.ask("opaque-token"); !errors.Is(err, introspection.ErrUnavailable) {
		t.Errorf("beyond the rate: %v", err)
	}
}

// slow is a provider that takes its time, without a network.
type slow struct{ calls, most atomic.Int32 }

func (s *slow) RoundTrip(req *http.Request) (*http.Response, error) {
	n := s.calls.Add(1)
	defer s.calls.Add(-1)
	s.most.Store(max(n, s.most.Load()))
	select {
	case <-req.Context().Done():
		return nil, req.Context().Err()
	case <-time.After(time.Second):
	}
	w := httptest.NewRecorder()
	idptest.Text(`{"active":false}`)(w, req)
	return w.Result(), nil
}

// A provider that is slow holds up few calls, and nobody longer than the
// deadline.
func TestCallsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	synctest.Test(t, func(t *testing.T) {
		idp := &slow{}
		i, err := introspection.New(introspection.Config{Secret: introspection.Secrets(r.secrets), Client: &http.Client{Transport: idp}})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var told, untold atomic.Int32
		var all sync.WaitGroup
		for n := range 60 {
			all.Go(func() {
				_, err := i.Introspect(t.Context(), r.provider, rand.Text(), fmt.Sprintf("10.0.0.%d", n), time.Now())
				switch {
				case errors.Is(err, credential.Inactive):
					told.Add(1)
				case errors.Is(err, introspection.ErrUnavailable):
					untold.Add(1)
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took != 1500*time.Millisecond || idp.most.Load() != 16 || told.Load() != 16 || untold.Load() != 44 {
			t.Errorf("%d calls at once, %v in all; %d told, %d not", idp.most.Load(), took, told.Load(), untold.Load())
		}
	})
}

// What a document says counts at once, also for what is remembered.
func TestDocumentsThatChange(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	token := r.idp.Login(t, idptest.User, idptest.Opaque).Access
	if _, err := r.ask(token); err != nil {
		t.Fatal(err)
	}
	r.change(func(p *chancerypb.Provider) { p.Jwks, p.Name = []byte("new keys"), "fake" })
	if _, err := r.ask(token); err != nil || r.asked() != 1 {
		t.Errorf("new keys alone: %v, asked %d times", err, r.asked())
	}
	before := r.provider
	for name, row := range map[string]struct {
		change func(*chancerypb.Provider)
		want   error
	}{
		"audience": {func(p *chancerypb.Provider) { p.Audiences = []string{"other"} }, credential.WrongAudience},
		"issuer":   {func(p *chancerypb.Provider) { p.Issuer = "https://other.example" }, credential.WrongIssuer},
		"claims":   {func(p *chancerypb.Provider) { p.Claims = &chancerypb.ClaimMapping{User: "username"} }, credential.BadClaim},
		"endpoint": {func(p *chancerypb.Provider) { p.Introspection.Endpoint += "/none" }, introspection.ErrUnavailable},
		"client":   {func(p *chancerypb.Provider) { p.Introspection.Client = "other" }, introspection.ErrUnavailable},
		"nowhere":  {func(p *chancerypb.Provider) { p.Introspection.Endpoint = "" }, introspection.ErrUnavailable},
		"never":    {func(p *chancerypb.Provider) { p.Introspection = nil }, introspection.ErrUnavailable},
		"private":  {func(p *chancerypb.Provider) { p.Introspection.AllowPrivate = false }, introspection.ErrUnavailable},
	} {
		r.provider = before
		r.change(row.change)
		if _, err := r.ask(token); !errors.Is(err, row.want) {
			t.Errorf("another %s: %v, want %v", name, err, row.want)
		}
	}
	r.provider = before
	if _, err := r.ask(token); err != nil {
		t.Errorf("as before: %v", err)
	}
	// The names of providers are not part of the key only by their answers.
	r.change(func(p *chancerypb.Provider) { p.Name = "twin" })
	if id, err := r.ask(token); err != nil || id.Provider != "twin" {
		t.Errorf("another document for the same: %+v, %v", id, err)
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good := idptest.Secret(idptest.APIClient)
	r.change(func(p *chancerypb.Provider) { p.Introspection.Cache = durationpb.New(0) })
	token := r.idp.Login(t, idptest.User, idptest.Opaque).Access
	for name, row := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"others can read it": {good, 0o640, "mode 0600"},
		"empty":              {"\n", 0o600, "is empty"},
		"two lines":          {good + "\n" + good, 0o600, "one line"},
		"too long":           {strings.Repeat("a", 1025), 0o600, "longer"},
		"another one":        {"another-secret", 0o600, "status 401"},
	} {
		r.secret(row.text, row.mode)
		_, err := r.ask(token)
		if !errors.Is(err, introspection.ErrUnavailable) || !strings.Contains(err.Error(), row.want) ||
			strings.Contains(err.Error(), "another-secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{good, good + "\n", good + "\r\n"} {
		r.secret(text, 0o600) // counts at once
		if _, err := r.ask(token); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, name := range []string{"", "..", "../" + idptest.APIClient, "/etc/passwd", "none"} {
		if secret, err := introspection.Secrets(r.secrets)(name); err == nil {
			t.Errorf("%q is %q", name, secret)
		}
	}
	if _, err := introspection.Secrets("")("a"); err == nil || !strings.Contains(err.Error(), "--secrets") {
		t.Errorf("without a directory: %v", err)
	}
	if _, err := introspection.New(introspection.Config{}); err == nil {
		t.Error("without secrets")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.change(func(p *chancerypb.Provider) { p.Introspection.Rate = 1_000_000 })
	i, err := introspection.New(introspection.Config{Secret: introspection.Secrets(r.secrets), Size: 64})
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		good := r.idp.Login(t, idptest.User, idptest.Opaque).Access
		if _, err := i.Introspect(t.Context(), r.provider, good, address, time.Now()); err != nil {
			t.Fatal(err)
		}
		_, _ = i.Introspect(t.Context(), r.provider, rand.Text(), "", time.Now())
	}
	active, inactive := introspection.Held(i)
	if active == 0 || active > 64 || inactive == 0 || inactive > 64 {
		t.Errorf("%d good and %d bad tokens are remembered", active, inactive)
	}
}

// A panic is a denial, and not the end of the process.
func TestPanic(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var err error
	r.Introspector, err = introspection.New(introspection.Config{Secret: func(string) (string, error) { panic("broken") }})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := r.ask("a-token"); !errors.Is(err, introspection.ErrUnavailable) {
			t.Errorf("%v", err)
		}
	}
}

func TestProvidersThatAreGone(t *testing.T) {
	t.Parallel()
	i, err := introspection.New(introspection.Config{Secret: func(string) (string, error) { return "", errors.New("no secret") }})
	if err != nil {
		t.Fatal(err)
	}
	p := newRig(t).provider
	for n := range 3000 {
		p = proto.CloneOf(p)
		p.Name = fmt.Sprint("provider-", n)
		if _, err := i.Introspect(t.Context(), p, "a-token", address, time.Now()); !errors.Is(err, introspection.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if n := introspection.Desks(i); n > 1024 {
		t.Errorf("%d providers are remembered", n)
	}
}
