package demo

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"

	"github.com/chancery-mesh/chancery/passport"
)

var passports = []scene{
	{"orders asks inventory for the same request", "200, the same Passport there", sameAtNextHop},
	{"payments asks inventory to reserve, which only orders may", "403, nothing reaches inventory", wrongCaller},
	{"a forged Passport from outside, with ada's token", "200, it is dropped for a real one", forgedOutside},
	{
		"a stolen, real Passport from outside, without a token", "401",
		refused("orders", http.StatusUnauthorized, func(ctx context.Context, s *shop) (request, error) {
			stolen, err := s.stolen(ctx)
			return request{path: "/orders/7", passport: stolen}, err
		}),
	},
	{
		"a stolen, real Passport in place of a token", "401",
		refused("orders", http.StatusUnauthorized, func(ctx context.Context, s *shop) (request, error) {
			stolen, err := s.stolen(ctx)
			return request{path: "/orders/7", token: stolen}, err
		}),
	},
	{
		"a forged Passport from inside, by payments", "401, nothing reaches inventory",
		refused("inventory", http.StatusUnauthorized, func(ctx context.Context, s *shop) (request, error) {
			forged, err := s.forged(ctx)
			return s.fromPayments(request{path: "/stock/7", passport: forged}), err
		}),
	},
	{
		"no Passport from inside, by payments", "401, nothing reaches inventory",
		refused("inventory", http.StatusUnauthorized, func(_ context.Context, s *shop) (request, error) {
			return s.fromPayments(request{path: "/stock/7"}), nil
		}),
	},
	{
		"payments asks for orders, which it does not use", "421, nothing reaches orders",
		refused("orders", http.StatusMisdirectedRequest, func(ctx context.Context, s *shop) (request, error) {
			stolen, err := s.stolen(ctx)
			q := s.fromPayments(request{path: "/orders/7", passport: stolen})
			q.host = "orders"
			return q, err
		}),
	},
}

func sameAtNextHop(ctx context.Context, s *shop) (string, error) {
	re, err := s.send(ctx, request{path: "/orders/7", token: s.token})
	if err != nil {
		return "", err
	}
	up := re.answer.Upstream
	if up == nil || up.Answer == nil {
		return re.String(), errors.New("inventory did not answer: " + re.body)
	}
	return fmt.Sprintf("%d, %s got %s's Passport from %s", up.Status, up.Answer.Instance, up.Answer.Passport.User, lastPart(up.Answer.Caller)),
		errors.Join(
			expect(up.Answer.Passport.ID == re.answer.Passport.ID, "another Passport: %s", up.Answer.Passport.ID),
			expect(up.Answer.Passport.ID == re.header.Get(passport.RequestIDHeader), "the Passport's id is not the request's"),
			expect(up.Answer.Caller == "spiffe://shop.example/service/orders", "the caller is %q", up.Answer.Caller),
		)
}

func wrongCaller(ctx context.Context, s *shop) (string, error) {
	var re reply
	reached, err := s.reaching(ctx, "inventory", func() (err error) {
		re, err = s.send(ctx, request{method: http.MethodPost, path: "/payments/7/refund", token: s.token})
		return err
	})
	if err != nil {
		return "", err
	}
	up := re.answer.Upstream
	if up == nil {
		return re.String(), errors.New("payments did not get to ask: " + re.body)
	}
	return fmt.Sprintf("%d for payments", up.Status), errors.Join(
		expect(up.Status == http.StatusForbidden, "not 403"),
		expect(reached == 0, "%d requests reached inventory", reached),
	)
}

func forgedOutside(ctx context.Context, s *shop) (string, error) {
	forged, err := s.forged(ctx)
	if err != nil {
		return "", err
	}
	re, err := s.send(ctx, request{path: "/orders/7", token: s.token, passport: forged})
	if err != nil {
		return "", err
	}
	user := re.answer.Passport.User
	return fmt.Sprintf("%d, orders got a Passport of %s", re.status, user), expect(user == "ada", "not ada's")
}

// stolen is a Passport that is valid, as somebody inside could have it.
func (s *shop) stolen(ctx context.Context) (string, error) {
	re, err := s.send(ctx, request{path: "/orders/7", token: s.token})
	if err != nil {
		return "", err
	}
	if re.status != http.StatusOK || re.answer.Upstream == nil || re.answer.Upstream.Status != http.StatusOK {
		return "", fmt.Errorf("ada does not get through: %d %s", re.status, re.body)
	}
	received, err := s.Received(ctx, "inventory")
	return received.Passport, err
}

// forged says what a real one says, of mallory, and is signed by mallory.
func (s *shop) forged(ctx context.Context) (string, error) {
	stolen, err := s.stolen(ctx)
	if err != nil {
		return "", err
	}
	p, _, err := passport.Inspect(stolen)
	if err != nil {
		return "", err
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return "", err
	}
	signer, err := passport.NewSigner(key)
	if err != nil {
		return "", err
	}
	p.Subject = "mallory"
	return signer.Mint(p)
}

// fromPayments sends q to inventory as the payments application would.
func (s *shop) fromPayments(q request) request {
	q.via, q.host = s.Instances("payments")[0].Outbound.String(), "inventory"
	return q
}
