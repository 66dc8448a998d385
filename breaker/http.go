package breaker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
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

// GetJSON fetches url, which must answer 200 with one JSON value, and decodes
// it into v. Garbage counts against the other side as any failure does. After
// an error v may be half-filled. The error never quotes what was answered.
func (c *Client) GetJSON(ctx context.Context, url string, v any) error {
	_, err := Do(ctx, c.guard, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, c.getJSON(ctx, url, v)
	})
	return err
}

func (c *Client) getJSON(ctx context.Context, url string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: status %d", req.URL.Redacted(), resp.StatusCode)
	}
	body, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(body, v)
	}
	if err != nil {
		return fmt.Errorf("get %s: %w", req.URL.Redacted(), err)
	}
	return nil
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
