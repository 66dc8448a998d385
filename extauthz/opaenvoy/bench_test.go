package opaenvoy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"syscall"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/codes"

	"github.com/chancery-mesh/chancery/extauthz/opaenvoy"
	"github.com/chancery-mesh/chancery/extauthz/policy/rego"
)

// w1 is the work that authorization servers are compared by: verify signature,
// issuer, audience and end of a token, and hold its groups against a route.
const w1 = `package envoy.authz

import input.attributes.request.http

default allow := false

allow if {
	http.method == "GET"
	input.parsed_path[0] == "orders"
	"sales" in claims.groups
}

allow if {
	http.method == "POST"
	input.parsed_path == ["orders"]
	"sales-admin" in claims.groups
}

claims := payload if {
	[scheme, token] := split(http.headers.authorization, " ")
	scheme == "Bearer"
	[valid, _, payload] := io.jwt.decode_verify(token, {"cert": data.jwks, "iss": "https://idp.test", "aud": "shop-api"})
	valid
}
`

// w1Requests are checks of 1.5 KB with that many tokens, half RS256, half ES256:
// of ten, eight are allowed, one is forbidden, and one has a token that is bad.
func w1Requests(b *testing.B, tokens int) (jwks string, requests []*authv3.CheckRequest) {
	b.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	point, err := ecKey.PublicKey.Bytes()
	if err != nil {
		b.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	set, err := json.Marshal(map[string]any{"keys": []any{
		map[string]any{"kty": "RSA", "kid": "r", "alg": "RS256", "use": "sig", "n": b64(rsaKey.N.Bytes()), "e": b64(big.NewInt(int64(rsaKey.E)).Bytes())},
		map[string]any{"kty": "EC", "kid": "e", "alg": "ES256", "use": "sig", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])},
	}})
	if err != nil {
		b.Fatal(err)
	}
	for i := range tokens {
		group := "sales"
		if i%10 == 8 {
			group = "nobody"
		}
		claims := jwt.MapClaims{
			"iss": "https://idp.test", "aud": "shop-api", "sub": fmt.Sprintf("user-%d", i), "exp": time.Now().Add(time.Hour).Unix(),
			"iat": time.Now().Unix(), "groups": []string{group, "staff", "berlin"}, "tenant": "acme", "azp": "web",
		}
		var token string
		if i%2 == 0 {
			t := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
			t.Header["kid"] = "r"
			token, err = t.SignedString(rsaKey)
		} else {
			t := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
			t.Header["kid"] = "e"
			token, err = t.SignedString(ecKey)
		}
		if err != nil {
			b.Fatal(err)
		}
		if i%10 == 9 {
			token = token[:len(token)-8] + "AAAAAAAA"
		}
		requests = append(requests, request(&authv3.AttributeContext_HttpRequest{
			Id: "13359530607844510314", Method: "GET", Path: fmt.Sprintf("/orders/%d?expand=lines", i), Host: "api.test", Scheme: "https", Protocol: "HTTP/2", Size: -1,
			Headers: map[string]string{
				":authority": "api.test", ":method": "GET", ":path": fmt.Sprintf("/orders/%d?expand=lines", i), ":scheme": "https",
				"authorization": "Bearer " + token, "accept": "application/json", "accept-encoding": "gzip, deflate, br", "accept-language": "en-GB,en;q=0.9",
				"user-agent":      "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
				"x-forwarded-for": "192.0.2.1", "x-forwarded-proto": "https", "x-request-id": "92a6c0f7-0250-944b-9cfc-ae10cbcedd8e",
			},
		}))
	}
	return string(set), requests
}

func BenchmarkW1(b *testing.B) {
	jwks, requests := w1Requests(b, 100)
	policy, err := rego.Compile(b.Context(), rego.Source{
		Modules: []rego.Module{{File: "w1.rego", Text: w1}}, Data: map[string]any{"jwks": jwks},
	})
	if err != nil {
		b.Fatal(err)
	}
	query, err := policy.Prepare(b.Context(), "data.envoy.authz.allow", rego.Options{Timeout: time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	server, err := opaenvoy.New(opaenvoy.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	server.SetQuery(query)
	b.ReportAllocs()
	i, begin := 0, cpu(b)
	for b.Loop() {
		i++
		n := i % len(requests)
		resp, err := server.Check(b.Context(), requests[n])
		if allowed := resp.GetStatus().GetCode() == int32(codes.OK); err != nil || allowed != (n%10 < 8) {
			b.Fatalf("request %d: %v, %v", n, resp, err)
		}
	}
	b.ReportMetric(float64((cpu(b)-begin).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// cpu is the processor time that this process has had: on a machine with other
// work, the clock on the wall says little.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func BenchmarkInput(b *testing.B) {
	_, requests := w1Requests(b, 10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := opaenvoy.Input(requests[0], opaenvoy.InputOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
