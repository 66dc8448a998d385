package issuer_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/examples/shop/issuer"
)

const url = "http://idp.test"

func start(t *testing.T) (public, mint *httptest.Server) {
	t.Helper()
	i, err := issuer.New(url)
	if err != nil {
		t.Fatal(err)
	}
	handler, err := i.Public()
	if err != nil {
		t.Fatal(err)
	}
	public, mint = httptest.NewServer(handler), httptest.NewServer(i.Mint())
	t.Cleanup(public.Close)
	t.Cleanup(mint.Close)
	return public, mint
}

func request(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

func TestMint(t *testing.T) {
	t.Parallel()
	public, mint := start(t)
	_, jwks := request(t, http.MethodGet, public.URL+"/jwks", "")
	var set jwkset.JWKSMarshal
	if err := json.Unmarshal([]byte(jwks), &set); err != nil || len(set.Keys) != 1 {
		t.Fatalf("%s: %v", jwks, err)
	}
	key, err := jwkset.NewJWKFromMarshal(set.Keys[0], jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	status, token := request(t, http.MethodPost, mint.URL+"/mint", `{"sub": "joe", "tenant": null, "level": 3}`)
	if status != http.StatusOK {
		t.Fatal(status, token)
	}
	parsed, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return key.Key(), nil },
		jwt.WithIssuer(url), jwt.WithAudience("shop-api"), jwt.WithExpirationRequired(), jwt.WithValidMethods([]string{"ES256"}))
	if err != nil {
		t.Fatal(err)
	}
	claims := parsed.Claims.(jwt.MapClaims)
	delete(claims, "iat")
	delete(claims, "exp")
	want := jwt.MapClaims{
		"iss": url, "aud": "shop-api", "sub": "joe", "groups": []any{"sales"}, "client_id": "web", "level": 3.0,
	}
	if diff := cmp.Diff(want, claims); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]any{"alg": "ES256", "typ": "at+jwt", "kid": set.Keys[0].KID}, parsed.Header); diff != "" {
		t.Error(diff)
	}
}

func TestMintRefusesWhatIsNotClaims(t *testing.T) {
	t.Parallel()
	_, mint := start(t)
	if status, body := request(t, http.MethodPost, mint.URL+"/mint", "[]"); status != http.StatusBadRequest {
		t.Error(status, body)
	}
}

func TestPublic(t *testing.T) {
	t.Parallel()
	public, _ := start(t)
	_, body := request(t, http.MethodGet, public.URL+"/.well-known/openid-configuration", "")
	var discovery struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal([]byte(body), &discovery); err != nil {
		t.Fatal(err)
	}
	if discovery.Issuer != url || discovery.JWKSURI != url+"/jwks" {
		t.Errorf("%+v", discovery)
	}
	if _, jwks := request(t, http.MethodGet, public.URL+"/jwks", ""); strings.Contains(jwks, `"d"`) {
		t.Error("the private key is public")
	}
	if status, _ := request(t, http.MethodPost, public.URL+"/mint", "{}"); status == http.StatusOK {
		t.Error("anybody can mint")
	}
}
