package bundle_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-mesh/chancery/extauthz/policy/bundle"
	"github.com/chancery-mesh/chancery/extauthz/policy/rego"
)

// host serves a bundle in memory.
type host struct {
	mu       sync.Mutex
	data     []byte
	status   int
	requests []*http.Request
}

func (h *host) serve(data []byte, status int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.data, h.status = data, status
}

// RoundTrip implements http.RoundTripper, in the place of a network.
func (h *host) RoundTrip(req *http.Request) (*http.Response, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests = append(h.requests, req)
	if h.status == 0 {
		return nil, errors.New("no route to host")
	}
	w := httptest.NewRecorder()
	etag := fmt.Sprintf(`"%d-%x"`, len(h.data), h.data[len(h.data)/2:len(h.data)/2+8])
	w.Header().Set("ETag", etag)
	if h.status == http.StatusOK && req.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
	} else {
		w.WriteHeader(h.status)
		_, _ = w.Write(h.data)
	}
	return w.Result(), nil
}

func (h *host) last() *http.Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.requests[len(h.requests)-1]
}

// subject is a policy that follows a bundle.
type subject struct {
	t        *testing.T
	query    atomic.Pointer[rego.Query]
	registry *prometheus.Registry
}

// follow returns a Watcher, and the policy that follows it.
func follow(t *testing.T, c bundle.Config) (*subject, *bundle.Watcher, error) {
	t.Helper()
	s := &subject{t: t, registry: prometheus.NewPedanticRegistry()}
	logger := slog.New(slog.DiscardHandler)
	loader, err := rego.NewLoader(rego.LoaderConfig{
		Query: "data.shop.allow", Use: func(q *rego.Query) { s.query.Store(q) }, Logger: logger, Registerer: s.registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Loader, c.Logger, c.Registerer = loader, logger, s.registry
	w, err := bundle.NewWatcher(c)
	return s, w, err
}

// expect holds what decides against what should: the answer, or "" for nothing,
// and whether the newest bundle was refused.
func (s *subject) expect(what, answer string, refused bool) {
	s.t.Helper()
	got := s.answer()
	if alarm := s.refused(); got != answer || alarm != refused {
		s.t.Errorf("%s: answer %q, refused %v; want %q, %v", what, got, alarm, answer, refused)
	}
}

// answer is what the policy says, or "" while there is none.
func (s *subject) answer() string {
	s.t.Helper()
	q := s.query.Load()
	if q == nil {
		return ""
	}
	v, err := q.Eval(s.t.Context(), nil, now)
	if err != nil {
		s.t.Error(err)
	}
	return string(v.(json.Number))
}

func (s *subject) refused() bool {
	s.t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "chancery_policy_refused" {
			return f.GetMetric()[0].GetGauge().GetValue() == 1
		}
	}
	return false
}

func TestWatchServer(t *testing.T) {
	t.Parallel()
	s, other := ecdsaSigner(t), ecdsaSigner(t)
	bundleOf := func(revision string, answer int) []byte {
		return parts{revision: revision, answer: answer, signer: &s}.make(t)
	}
	one, two, twoOther, three := bundleOf("1", 1), bundleOf("2", 2), bundleOf("2", 22), bundleOf("3", 3)
	unsigned := parts{revision: "9"}.make(t)
	foreign := parts{revision: "9", signer: &other}.make(t)
	faulty := parts{revision: "9", signer: &s, module: "package shop\nallow := nosuch(1)"}.make(t)
	four := bundleOf("4", 4)
	state, token := t.TempDir(), filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("t0ken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		h := &host{}
		config := bundle.Config{
			Location: "https://bundles.test/shop.tar.gz?key=s3cr3t", Options: bundle.Options{Keys: bundle.Keys{s.key}}, StateDir: state,
			TokenFile: token, Client: &http.Client{Transport: h},
		}
		policy, w, err := follow(t, config)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		step := func(what string, data []byte, status int, answer string, refused bool) {
			t.Helper()
			h.serve(data, status)
			time.Sleep(time.Minute)
			synctest.Wait()
			policy.expect(what, answer, refused)
		}
		step("no server yet", nil, 0, "", true)
		step("the first", one, 200, "1", false)
		step("the same again", one, 200, "1", false) // an interval may be longer than a minute
		if req := h.last(); req.Header.Get("If-None-Match") == "" || req.Header.Get("Authorization") != "Bearer t0ken" {
			t.Errorf("asked with %v", req.Header)
		}
		step("a newer one", two, 200, "2", false)
		step("server fails", two, 500, "2", true)
		step("server is back", two, 200, "2", false)
		step("an older one", one, 200, "2", true)
		step("the same again", two, 200, "2", false)
		step("another of the same version", twoOther, 200, "2", true)
		step("unsigned", unsigned, 200, "2", true)
		step("of another key", foreign, 200, "2", true)
		step("garbage", []byte("<html>not a bundle</html>"), 200, "2", true)
		step("that does not compile", faulty, 200, "2", true)
		step("too large", make([]byte, 17<<20), 200, "2", true)
		step("sent elsewhere", two, 302, "2", true)
		time.Sleep(5 * time.Minute) // the breaker closes
		step("the next", three, 200, "3", false)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}

		// After a restart the last good one decides before the server answers, and
		// is not followed by an older one either.
		h.serve(nil, 0)
		if policy, w, err = follow(t, config); err != nil {
			t.Fatal(err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		go func() { ended <- w.Run(ctx) }()
		step("restarted, no server", nil, 0, "3", true)
		step("restarted, an older one", two, 200, "3", true)
		step("restarted, the same", three, 200, "3", false)
		step("restarted, a newer one", four, 200, "4", false)
		cancel()
		<-ended
	})
	// Whoever writes to the directory of state is not believed either.
	if err := os.WriteFile(filepath.Join(state, "bundle.tar.gz"), foreign, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		policy, w, err := follow(t, bundle.Config{
			Location: "https://bundles.test/shop.tar.gz", Options: bundle.Options{Keys: bundle.Keys{s.key}}, StateDir: state, Client: &http.Client{Transport: &host{}},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		policy.expect("a foreign bundle in the state", "", true)
		cancel()
		<-ended
	})
}

// Polls of the same bundle load nothing, and no token or query is in an error.
func TestWatchServerAsksWithETag(t *testing.T) {
	t.Parallel()
	data := parts{answer: 1}.make(t)
	synctest.Test(t, func(t *testing.T) {
		h := &host{data: data, status: 200}
		policy, w, err := follow(t, bundle.Config{Location: "https://bundles.test/b?key=s3cr3t", Client: &http.Client{Transport: h}, Poll: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		time.Sleep(95 * time.Second)
		synctest.Wait()
		policy.expect("the same", "1", false)
		h.mu.Lock()
		if n := len(h.requests); n < 9 || n > 11 {
			t.Errorf("%d requests in 95 s", n)
		}
		for _, req := range h.requests[1:] {
			if req.Header.Get("If-None-Match") == "" {
				t.Error("asked without an ETag")
			}
		}
		h.mu.Unlock()
		cancel()
		<-ended
	})
}

func TestWatchFile(t *testing.T) {
	t.Parallel()
	s := ecdsaSigner(t)
	path := filepath.Join(t.TempDir(), "b.tar.gz")
	put := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(path+".new", data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	options := bundle.Options{Keys: bundle.Keys{s.key}}
	for name, data := range map[string][]byte{"unsigned": parts{revision: "1"}.make(t), "garbage": []byte("x")} {
		put(data)
		policy, w, err := follow(t, bundle.Config{Location: path, Options: options})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Run(t.Context()); err == nil {
			t.Errorf("%s from the beginning: no error", name)
		}
		policy.expect(name, "", false)
	}
	put(parts{revision: "1", answer: 1, signer: &s}.make(t))
	policy, w, err := follow(t, bundle.Config{Location: path, Options: options})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	eventually := func(answer string, refused bool) {
		t.Helper()
		deadline := time.Now().Add(10 * time.Second)
		for (policy.answer() != answer || policy.refused() != refused) && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		policy.expect("file", answer, refused)
	}
	eventually("1", false)
	put(parts{revision: "2", answer: 2, signer: &s}.make(t))
	eventually("2", false)
	put(parts{revision: "3", answer: 3}.make(t))
	eventually("2", true)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWatcherConfig(t *testing.T) {
	t.Parallel()
	key := bundle.Options{Keys: bundle.Keys{ecdsaSigner(t).key}}
	for location, c := range map[string]struct {
		bundle.Config
		ok bool
	}{
		"":                             {},
		"b.tar.gz":                     {ok: true},
		"https://bundles.test/b":       {ok: true},
		"http://bundles.test/b":        {},
		"http://bundles.test/signed":   {Config: bundle.Config{Options: key}, ok: true},
		"http://bundles.test/token":    {Config: bundle.Config{Options: key, TokenFile: "t"}},
		"http://127.0.0.1:80/b":        {ok: true},
		"http://localhost/b":           {ok: true},
		"http://[::1]/b":               {ok: true},
		"http://127.0.0.1.evil.test/b": {},
		"ftp://bundles.test/b":         {Config: bundle.Config{Options: key}},
		"https://user:s3cr3t@x.test/b": {},
		"https:///b":                   {},
		"https://a b/s3cr3t":           {},
	} {
		c.Config.Location = location
		_, _, err := follow(t, c.Config)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", location, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: %v", location, err)
		}
	}
}
