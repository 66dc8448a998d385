package idptest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// endpoints are what a provider's discovery document says.
type endpoints struct {
	Issuer        string `json:"issuer"`
	Authorization string `json:"authorization_endpoint"`
	Token         string `json:"token_endpoint"`
	Revocation    string `json:"revocation_endpoint"`
}

func discover(t testing.TB, issuer string) endpoints {
	t.Helper()
	var e endpoints
	ask(t, http.DefaultClient, newRequest(t, http.MethodGet, issuer+Discovery, nil), &e)
	return e
}

// grant asks for tokens as a client.
func (e endpoints) grant(t testing.TB, client string, form url.Values) Tokens {
	t.Helper()
	req := newRequest(t, http.MethodPost, e.Token, form)
	req.SetBasicAuth(client, Secret(client))
	var answer struct {
		Access string `json:"access_token"`
		ID     string `json:"id_token"`
	}
	ask(t, http.DefaultClient, req, &answer)
	if answer.Access == "" {
		t.Fatal("no access token")
	}
	return Tokens(answer)
}

// Revoke implements Provider (RFC 7009).
func (e endpoints) Revoke(t testing.TB, token string) {
	t.Helper()
	req := newRequest(t, http.MethodPost, e.Revocation, url.Values{"token": {token}})
	req.SetBasicAuth(WebClient, Secret(WebClient))
	ask(t, http.DefaultClient, req, nil)
}

// newRequest has the form as its body, if there is one.
func newRequest(t testing.TB, method, address string, form url.Values) *http.Request {
	t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(t.Context(), method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req
}

// ask wants an answer that says yes, decodes it into v unless v is nil, and
// returns where it was in the end.
func ask(t testing.TB, client *http.Client, req *http.Request, v any) *url.URL {
	t.Helper()
	status, at, body, err := try(client, req)
	switch {
	case err != nil:
	case status >= http.StatusBadRequest:
		err = fmt.Errorf("status %d: %.1000s", status, body)
	case v != nil:
		err = json.Unmarshal(body, v)
	}
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL.Redacted(), err)
	}
	return at
}

func try(client *http.Client, req *http.Request) (status int, at *url.URL, body []byte, err error) {
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Request.URL, body, err
}
