package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

var logins = []scene{
	{
		"DELETE /orders/7, which wants both tokens, with one of them", "401",
		refused("orders", http.StatusUnauthorized, func(_ context.Context, s *shop) (request, error) {
			return request{method: http.MethodDelete, path: "/orders/7", token: s.token}, nil
		}),
	},
	{"the same with both of ada's tokens", "200", bothTokens},
	{
		"the same with ada's access token and joe's ID token", "401, they do not belong together",
		refused("orders", http.StatusUnauthorized, func(ctx context.Context, s *shop) (request, error) {
			return s.cancel(ctx, map[string]any{"sub": "joe"})
		}),
	},
	{
		"the same by ada, who logged in yesterday", "401, how to log in again",
		refused("orders", http.StatusUnauthorized, func(ctx context.Context, s *shop) (request, error) {
			return s.cancel(ctx, map[string]any{"auth_time": 1})
		}),
	},
	{"POST /stocktaking by bo, with a password", "200, a Passport of bo", withPassword},
	{
		"the same with a wrong password", "401",
		refused("inventory", http.StatusUnauthorized, func(context.Context, *shop) (request, error) {
			return request{method: http.MethodPost, path: "/stocktaking", user: "bo", password: "open-barley"}, nil
		}),
	},
	{"order 7's Passport, with the gateway's certificate, asks for 8", "403: it opens 7 alone", boundPassport},
}

// cancel is a request to cancel order 7, with both tokens.
func (s *shop) cancel(ctx context.Context, claims map[string]any) (request, error) {
	id, err := s.Issuer.IDToken(ctx, claims)
	return request{method: http.MethodDelete, path: "/orders/7", token: s.token, idToken: id}, err
}

func bothTokens(ctx context.Context, s *shop) (string, error) {
	q, err := s.cancel(ctx, nil)
	if err != nil {
		return "", err
	}
	re, err := s.send(ctx, q)
	if err != nil {
		return "", err
	}
	return re.String(), expect(re.status == http.StatusOK && re.answer.Passport.User == "ada", "not let in: %s", re.body)
}

func withPassword(ctx context.Context, s *shop) (string, error) {
	re, err := s.send(ctx, request{method: http.MethodPost, path: "/stocktaking", user: "bo", password: "open-sesame"})
	if err != nil {
		return "", err
	}
	if re.status != http.StatusOK {
		return re.String(), errors.New(re.body)
	}
	user := re.answer.Passport.User
	return fmt.Sprintf("200, inventory got a Passport of %s", user), errors.Join(
		expect(user == "bo", "not bo's"),
		expect(!re.answer.Authorization, "the password reached the service"))
}

// boundPassport is what a thief could do who has stolen even the gateway's own
// certificate, but none of its signing keys.
func boundPassport(ctx context.Context, s *shop) (string, error) {
	if _, err := s.send(ctx, request{path: "/orders/7", token: s.token}); err != nil {
		return "", err
	}
	received, err := s.Received(ctx, "orders")
	if err != nil {
		return "", err
	}
	gateway, err := certificateIn(s.Gateway.State)
	if err != nil {
		return "", err
	}
	ask := func(path string) (reply, error) {
		return s.send(ctx, request{
			path: path, host: "orders", at: s.Instances("orders")[0].Agent, tls: anyServer(gateway), passport: received.Passport,
		})
	}
	own, err := ask("/orders/7")
	if err != nil {
		return "", err
	}
	other, err := ask("/orders/8")
	return fmt.Sprintf("%s; %s for order 7", other, own), errors.Join(err,
		expect(own.status == http.StatusOK, "order 7 is not opened: %s", own.body),
		expect(other.status == http.StatusForbidden, "order 8: %s", other.body))
}
