package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

var credentials = []scene{
	{"GET /orders/7 with ada's token", "200, her Passport, and not her token", goodToken},
	{
		"GET /orders/7 without a token", "401, WWW-Authenticate",
		refused("orders", http.StatusUnauthorized, func(context.Context, *shop) (request, error) {
			return request{path: "/orders/7"}, nil
		}),
	},
	{"GET /orders/7 with an expired token", "401", withClaims(http.StatusUnauthorized, func() map[string]any {
		return map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}
	})},
	{"GET /orders/7 with a token for somebody else", "401", withClaims(http.StatusUnauthorized, func() map[string]any {
		return map[string]any{"aud": "another-api"}
	})},
	{
		"GET /orders/7 with a token that was changed", "401",
		refused("orders", http.StatusUnauthorized, func(_ context.Context, s *shop) (request, error) {
			return request{path: "/orders/7", token: changed(s.token)}, nil
		}),
	},
	{"GET /orders/7 with a token of the wrong group", "403", withClaims(http.StatusForbidden, func() map[string]any {
		return map[string]any{"groups": []string{"visitors"}}
	})},
}

func goodToken(ctx context.Context, s *shop) (string, error) {
	re, err := s.send(ctx, request{path: "/orders/7", token: s.token})
	if err != nil {
		return "", err
	}
	if re.status != http.StatusOK {
		return re.String(), errors.New(re.body)
	}
	a := re.answer
	came := fmt.Sprintf("200, %s got a Passport of %s by %s", a.Instance, a.Passport.User, lastPart(a.Passport.Gateway))
	received, err := s.Received(ctx, "orders")
	return came, errors.Join(err,
		expect(a.Passport.User == "ada" && a.Passport.Tenant == "acme", "the Passport is of %s at %s", a.Passport.User, a.Passport.Tenant),
		expect(a.Caller == "spiffe://shop.example/gateway/public", "the caller is %q", a.Caller),
		expect(!a.Authorization && received.WithAuthorization == 0, "the token reached the service"),
		expect(received.WithoutPassport == 0, "requests came without a Passport"),
	)
}

// withClaims plays a request whose token differs in these claims.
func withClaims(status int, claims func() map[string]any) func(context.Context, *shop) (string, error) {
	return refused("orders", status, func(ctx context.Context, s *shop) (request, error) {
		token, err := s.Issuer.Token(ctx, claims())
		return request{path: "/orders/7", token: token}, err
	})
}

// changed gives a token's last-but-one segment, its claims, another letter.
func changed(token string) string {
	at := strings.LastIndexByte(token, '.') - 5
	letter := "A"
	if token[at] == 'A' {
		letter = "B"
	}
	return token[:at] + letter + token[at+1:]
}

func lastPart(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }
