package passport_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/chancery-mesh/chancery/passport"
)

func TestMiddleware(t *testing.T) {
	t.Parallel()
	s := newSigner(t, newEd25519(t))
	token, err := s.Mint(example())
	if err != nil {
		t.Fatal(err)
	}
	handler := passport.Middleware(newVerifier(t, s))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := passport.FromContext(r.Context())
		if !ok {
			t.Error("no passport in context")
			return
		}
		_, _ = io.WriteString(w, p.Subject)
	}))
	for name, row := range map[string]struct {
		tokens []string
		status int
		body   string
	}{
		"good":    {[]string{token}, 200, "alice"},
		"none":    {nil, 401, "access denied\n"},
		"two":     {[]string{token, token}, 401, "access denied\n"},
		"joined":  {[]string{token + "," + token}, 401, "access denied\n"},
		"invalid": {[]string{token[1:]}, 401, "access denied\n"},
		"empty":   {[]string{""}, 401, "access denied\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			r.Header[passport.Header] = row.tokens
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if w.Code != row.status || w.Body.String() != row.body {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body, row.status, row.body)
			}
			if challenge := w.Header().Get("WWW-Authenticate"); (challenge != "") != (row.status == 401) {
				t.Errorf("WWW-Authenticate = %q", challenge)
			}
		})
	}
}

func TestTransport(t *testing.T) {
	t.Parallel()
	s := newSigner(t, newEd25519(t))
	token, err := s.Mint(example())
	if err != nil {
		t.Fatal(err)
	}
	p, err := newVerifier(t, s).Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	var redirected http.Header
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { redirected = r.Header }))
	defer other.Close()
	var received http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		received = r.Header
		http.Redirect(w, r, other.URL, http.StatusFound)
	}))
	defer server.Close()

	client := &http.Client{Transport: &passport.Transport{}}
	get := func(r *http.Request) {
		t.Helper()
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
	}
	r, err := http.NewRequestWithContext(passport.NewContext(t.Context(), p), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	get(r)
	if received.Get("Txn-Token") != token || received.Get("X-Request-Id") != "req-1" {
		t.Errorf("headers = %v", received)
	}
	if r.Header.Get("Txn-Token") != "" {
		t.Error("the caller's request was changed")
	}
	if redirected.Get("Txn-Token") != "" {
		t.Error("passport followed a redirect")
	}

	r, err = http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	get(r)
	if len(received["Txn-Token"])+len(received["X-Request-Id"]) != 0 {
		t.Errorf("headers without passport = %v", received)
	}
}
