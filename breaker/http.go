package breaker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// MaxBody is the most that [Client] reads of an answer, after decompression.
const MaxBody = 1 << 20

const maxRedirects = 3

// ErrRedirect says that the other side sent the call elsewhere and it did not
// follow.
var ErrRedirect = errors.New("redirect refused")

// Client fetches over HTTP under a [Guard].
type Client struct {
	guard *Guard
	http  *http.Client
}

// HTTP returns a Client that calls through a [Restrict]ed copy of c; nil is
// [http.DefaultClient].
func HTTP(g *Guard, c *http.Client) *Client {
	return &Client{guard: g, http: Restrict(cmp.Or(c, http.DefaultClient), MaxBody)}
}

// GetJSON fetches address, which must answer 200 with one JSON value, and decodes
// it into v. Garbage counts against the other side as any failure does. After
// an error v may be half-filled. The error never quotes what was answered.
func (c *Client) GetJSON(ctx context.Context, address string, v any) error {
	var none Validator
	_, err := c.GetChangedJSON(ctx, address, &none, v)
	return err
}

// Validator is how an answer can be recognized (RFC 9110 section 8.8). The zero
// value is of none.
type Validator struct{ etag, lastModified string }

// GetChangedJSON is [Client.GetJSON] for a caller that keeps the last answer.
// It asks for another than that of last, and leaves v alone and says so when
// there is none. Otherwise last becomes that of the new answer.
func (c *Client) GetChangedJSON(ctx context.Context, address string, last *Validator, v any) (changed bool, err error) {
	return Do(ctx, c.guard, func(ctx context.Context) (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return false, err
		}
		last.askWith(req)
		header, err := call(c.http, req, v)
		if errors.Is(err, errNotModified) && *last != (Validator{}) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		*last = Validator{etag: header.Get("ETag"), lastModified: header.Get("Last-Modified")}
		return true, nil
	})
}

func (v Validator) askWith(req *http.Request) {
	if v.etag != "" {
		req.Header.Set("If-None-Match", v.etag)
	}
	if v.lastModified != "" {
		req.Header.Set("If-Modified-Since", v.lastModified)
	}
}

// PostForm posts form to address as who auth says (RFC 6749 section 2.3.1), and
// decodes the answer as [Client.GetJSON] does. It follows no redirect, and the
// error quotes nothing of what was sent either.
func (c *Client) PostForm(ctx context.Context, address string, auth *url.Userinfo, form url.Values, v any) error {
	_, err := Do(ctx, c.guard, func(ctx context.Context) (struct{}, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
		if err != nil {
			return struct{}{}, err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		password, _ := auth.Password()
		req.SetBasicAuth(url.QueryEscape(auth.Username()), url.QueryEscape(password))
		unredirected := *c.http
		unredirected.CheckRedirect = func(*http.Request, []*http.Request) error {
			return fmt.Errorf("%w: the answer to a form is not elsewhere", ErrRedirect)
		}
		_, err = call(&unredirected, req, v)
		return struct{}{}, err
	})
	return err
}

// errNotModified is the answer that there is no other.
var errNotModified = errors.New("not modified")

// call makes one request whose answer is 200 with JSON.
func call(c *http.Client, req *http.Request, v any) (http.Header, error) {
	req.Header.Set("Accept", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	failed := func(err error) error {
		return fmt.Errorf("%s %s: %w", strings.ToLower(req.Method), req.URL.Redacted(), err)
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified:
		return nil, failed(errNotModified)
	default:
		return nil, failed(fmt.Errorf("status %d", resp.StatusCode))
	}
	body, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(body, v)
	}
	if err != nil {
		return nil, failed(err)
	}
	return resp.Header, nil
}

// Restrict returns a copy of c that reads at most maxBody bytes of an answer
// (then [http.MaxBytesError]), and follows few redirects, none of them to
// another host or scheme: headers with credentials would go along, and the
// other side could make Chancery ask where only Chancery can reach.
func Restrict(c *http.Client, maxBody int64) *http.Client {
	restricted := *c
	restricted.Transport = limitBody{cmp.Or(c.Transport, http.DefaultTransport), maxBody}
	restricted.CheckRedirect = checkRedirect
	return &restricted
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	if first := via[0].URL; req.URL.Host != first.Host || req.URL.Scheme != first.Scheme {
		return fmt.Errorf("%w: it leads to another host or scheme", ErrRedirect)
	}
	if len(via) > maxRedirects {
		return fmt.Errorf("%w: more than %d", ErrRedirect, maxRedirects)
	}
	return nil
}

type limitBody struct {
	next http.RoundTripper
	max  int64
}

// RoundTrip implements http.RoundTripper.
func (l limitBody) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(req)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, l.max)
	}
	return resp, err
}

// CloseIdleConnections lets http.Client reach the transport's.
func (l limitBody) CloseIdleConnections() {
	if c, ok := l.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
