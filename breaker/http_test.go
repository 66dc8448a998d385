package breaker_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/breaker"
)

func body(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(s)) }
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b)
	z.Close()
	return out.Bytes()
}

func TestGetJSON(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, "/", http.StatusFound)
			return
		}
		w.Write([]byte(`{"keys": 3}`))
	}))
	t.Cleanup(s.Close)
	for _, path := range []string{"/", "/moved"} {
		var got struct{ Keys int }
		c := breaker.HTTP(breaker.New(breaker.Config{Name: "idp"}), s.Client())
		if err := c.GetJSON(t.Context(), s.URL+path, &got); err != nil || got.Keys != 3 {
			t.Errorf("GetJSON(%s) = %+v, %v", path, got, err)
		}
	}
}

// Row K04 of the attack catalogue: what a broken or hostile server can answer.
func TestGetJSONRefuses(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(body(`{"keys": 3}`))
	t.Cleanup(elsewhere.Close)
	bomb := gzipped(make([]byte, 2<<20))
	is := func(target error) func(error) bool {
		return func(err error) bool { return errors.Is(err, target) }
	}
	syntax := func(err error) bool { _, ok := errors.AsType[*json.SyntaxError](err); return ok }
	tooLarge := func(err error) bool { _, ok := errors.AsType[*http.MaxBytesError](err); return ok }
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   func(error) bool
	}{
		"status 500": {
			func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "{}", 500) },
			func(err error) bool { return strings.HasSuffix(err.Error(), "status 500") },
		},
		"no answer": {
			func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			is(context.DeadlineExceeded),
		},
		"slow body": {
			func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					w.Write([]byte(" "))
					w.(http.Flusher).Flush()
					time.Sleep(10 * time.Millisecond)
				}
			},
			is(context.DeadlineExceeded),
		},
		"10 MiB body": {body(`{"a":"` + strings.Repeat("a", 10<<20) + `"}`), tooLarge},
		"gzip bomb": {
			func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				w.Write(bomb)
			},
			tooLarge,
		},
		"redirect to another host": {
			http.RedirectHandler(elsewhere.URL, http.StatusFound).ServeHTTP,
			is(breaker.ErrRedirect),
		},
		"redirect to another scheme": {
			func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "https://"+r.Host, http.StatusFound)
			},
			is(breaker.ErrRedirect),
		},
		"redirect to the metadata service": {
			http.RedirectHandler("http://169.254.169.254/latest", http.StatusFound).ServeHTTP,
			is(breaker.ErrRedirect),
		},
		"redirect loop": {http.RedirectHandler("/", http.StatusFound).ServeHTTP, is(breaker.ErrRedirect)},
		"HTML":          {body(`<html>secret</html>`), syntax},
		"cut short":     {body(`{"keys": 3`), syntax},
		"two values":    {body(`{"keys": 3}{}`), syntax},
		"empty":         {body(``), syntax},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(c.answer)
			t.Cleanup(s.Close)
			timeout := 30 * time.Second
			if name == "no answer" || name == "slow body" {
				timeout = time.Second
			}
			g := breaker.New(breaker.Config{Name: "idp", Failures: 1, Timeout: timeout})
			var got struct{ Keys int }
			err := breaker.HTTP(g, s.Client()).GetJSON(t.Context(), s.URL, &got)
			if err == nil || !c.want(err) || got.Keys != 0 {
				t.Errorf("GetJSON = %+v, %v", got, err)
			}
			if g.Closed() {
				t.Error("does not count as a failure")
			}
		})
	}
}

func TestGetChangedJSON(t *testing.T) {
	t.Parallel()
	const day = "Thu, 26 Nov 2026 12:00:00 GMT"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Last-Modified", day)
		if r.Header.Get("If-None-Match") == `"1"` && r.Header.Get("If-Modified-Since") == day {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Write([]byte(`{"keys": 3}`))
	}))
	t.Cleanup(s.Close)
	c := breaker.HTTP(breaker.New(breaker.Config{Name: "idp"}), s.Client())
	var last breaker.Validator
	var got struct{ Keys int }
	if changed, err := c.GetChangedJSON(t.Context(), s.URL, &last, &got); err != nil || !changed || got.Keys != 3 {
		t.Errorf("first: %+v, changed %v, %v", got, changed, err)
	}
	got.Keys = 4
	if changed, err := c.GetChangedJSON(t.Context(), s.URL, &last, &got); err != nil || changed || got.Keys != 4 {
		t.Errorf("again: %+v, changed %v, %v", got, changed, err)
	}
	if changed, err := c.GetChangedJSON(t.Context(), s.URL, new(breaker.Validator), &got); err != nil || !changed || got.Keys != 3 {
		t.Errorf("unconditionally: %+v, changed %v, %v", got, changed, err)
	}
}

// Nobody who was not asked may say that nothing has changed.
func TestNotModifiedUnasked(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }))
	t.Cleanup(s.Close)
	c := breaker.HTTP(breaker.New(breaker.Config{Name: "idp"}), s.Client())
	if changed, err := c.GetChangedJSON(t.Context(), s.URL, new(breaker.Validator), new(int)); err == nil || changed {
		t.Errorf("changed %v, %v", changed, err)
	}
}

func TestPostForm(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if r.Method != http.MethodPost || user != "a%3Ab" || password != "%C3%BC+%25" || r.PostFormValue("token") != "t&=" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, "/", http.StatusPermanentRedirect)
			return
		}
		w.Write([]byte(`{"active": true}`))
	}))
	t.Cleanup(s.Close)
	c := breaker.HTTP(breaker.New(breaker.Config{Name: "idp"}), s.Client())
	form := url.Values{"token": {"t&="}}
	var got struct{ Active bool }
	if err := c.PostForm(t.Context(), s.URL, url.UserPassword("a:b", "ü %"), form, &got); err != nil || !got.Active {
		t.Errorf("PostForm = %+v, %v", got, err)
	}
	if err := c.PostForm(t.Context(), s.URL+"/moved", url.UserPassword("a:b", "ü %"), form, &got); !errors.Is(err, breaker.ErrRedirect) {
		t.Errorf("redirected: %v", err)
	}
	err := c.PostForm(t.Context(), s.URL, url.UserPassword("a:b", "password"), form, &got)
	if err == nil || !strings.HasSuffix(err.Error(), "status 401") || strings.Contains(err.Error(), "password") || strings.Contains(err.Error(), "t&=") {
		t.Errorf("refused: %v", err)
	}
}

func TestGetJSONRefusesUnknownCertificate(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(body(`{}`))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	var got struct{}
	c := breaker.HTTP(breaker.New(breaker.Config{Name: "idp"}), &http.Client{Transport: &http.Transport{}})
	if err := c.GetJSON(t.Context(), s.URL, &got); err == nil {
		t.Error("a certificate of nobody's is believed")
	}
}

func TestErrorsKeepSecrets(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(body(`secret`))
	t.Cleanup(s.Close)
	url := strings.Replace(s.URL, "://", "://user:password@", 1)
	err := breaker.HTTP(breaker.New(breaker.Config{Name: "idp"}), nil).GetJSON(t.Context(), url, new(int))
	if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "password") {
		t.Errorf("GetJSON = %v", err)
	}
}
