package idptest

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/internal/tooltest"
	"github.com/chancery-mesh/chancery/mesh"
)

// OIDCProvider is the certified oidc-provider, as tools/oidc-provider sets it up.
type OIDCProvider struct {
	*process
	endpoints
}

var _ Provider = (*OIDCProvider)(nil)

// StartOIDCProvider runs one, which [tooltest.Path] finds, until the test ends.
func StartOIDCProvider(t testing.TB) *OIDCProvider {
	t.Helper()
	cmd := exec.Command(tooltest.Path(t, "oidc-provider", "run `make test-oidc`"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &OIDCProvider{process: run(t, cmd)}
	issuer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		issuer <- strings.TrimSpace(line)
	}()
	select {
	case at := <-issuer:
		p.endpoints = discover(t, at)
	case <-time.After(30 * time.Second):
		t.Fatal("oidc-provider does not say where it is")
	}
	return p
}

// Document implements Provider. It introspects opaque tokens alone.
func (p *OIDCProvider) Document() *mesh.IdentityProvider { return document("oidc-provider", p.Issuer) }

// resource is what tells oidc-provider which kind of token is wanted.
func resource(kind Kind) string {
	if kind == Opaque {
		return "https://shop.test/opaque"
	}
	return "https://shop.test/es256"
}

// ClientToken implements Provider.
func (p *OIDCProvider) ClientToken(t testing.TB, kind Kind) string {
	t.Helper()
	return p.grant(t, BatchClient, url.Values{
		"grant_type": {"client_credentials"}, "scope": {Scope}, "resource": {resource(kind)},
	}).Access
}

// Login implements Provider. It is an authorization code flow with PKCE, in
// which the test does what the user's browser does.
func (p *OIDCProvider) Login(t testing.TB, user string, kind Kind) Tokens {
	t.Helper()
	verifier := rand.Text() + rand.Text()
	challenge := sha256.Sum256([]byte(verifier))
	const callback = "http://127.0.0.1/callback"
	code := p.authorize(t, user, p.Authorization+"?"+url.Values{
		"client_id": {WebClient}, "response_type": {"code"}, "redirect_uri": {callback},
		"scope": {"openid profile " + Scope}, "resource": {resource(kind)}, "nonce": {rand.Text()},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	}.Encode())
	return p.grant(t, WebClient, url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}, "code_verifier": {verifier},
		"resource": {resource(kind)},
	})
}

// authorize follows where the provider leads, answers its two questions (who
// are you, may the client have this), and returns the code.
func (p *OIDCProvider) authorize(t testing.TB, user, at string) (code string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if code = req.URL.Query().Get("code"); code != "" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	led := ask(t, browser, newRequest(t, http.MethodGet, at, nil), nil)
	for _, answer := range []url.Values{{"prompt": {"login"}, "login": {user}, "password": {"any"}}, {"prompt": {"consent"}}} {
		if code == "" {
			led = ask(t, browser, newRequest(t, http.MethodPost, led.String(), answer), nil)
		}
	}
	if code == "" {
		t.Fatalf("no code at %s", led)
	}
	return code
}

// Rotate implements Provider.
func (p *OIDCProvider) Rotate(t testing.TB, keep bool) {
	t.Helper()
	at := p.Issuer + "/rotate"
	if keep {
		at += "?keep=1"
	}
	ask(t, http.DefaultClient, newRequest(t, http.MethodPost, at, nil), nil)
}
