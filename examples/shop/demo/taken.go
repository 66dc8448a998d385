package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/internal/rig"
)

var taken = []scene{
	{"a till gets an API key and asks GET /stock/7", "200, a Passport of branch-7", apiKeyGiven},
	{"the key is revoked", "401", apiKeyTaken},
	{"ada is revoked, whose token is good for an hour", "401 everywhere within 1s", userRevoked},
	{"the revocation is undone", "200", revocationUndone},
	{"joe asks for an order, and an operator why he may not", "403; the rule, its line, his groups", explained},
}

// apiKeyGiven makes a key as an operator does.
func apiKeyGiven(ctx context.Context, s *shop) (string, error) {
	out := filepath.Join(s.Dir(), "till.key")
	_, err := s.Chancery(ctx, "apikey", "create", "--documents", s.Documents.Dir,
		"--client", "till", "--owner", "branch-7", "--scopes", "stock:read", "--expires", "90d", "--out", out)
	if err != nil {
		return "", err
	}
	key, err := os.ReadFile(out)
	if err != nil {
		return "", err
	}
	s.key = strings.TrimSpace(string(key))
	start := time.Now()
	var re reply
	err = rig.Until(ctx, 5*time.Second, func(ctx context.Context) (err error) {
		re, err = s.send(ctx, request{path: "/stock/7", apiKey: s.key})
		return errors.Join(err, expect(re.status == http.StatusOK, "%d %s", re.status, re.body))
	})
	user := re.answer.Passport.User
	return fmt.Sprintf("200 after %s, inventory got a Passport of %s", round(time.Since(start)), user),
		errors.Join(err, expect(user == "branch-7", "not branch-7's"))
}

var keyID = regexp.MustCompile(`^chk_([0-9A-Za-z]{10})_`)

func apiKeyTaken(ctx context.Context, s *shop) (string, error) {
	id := keyID.FindStringSubmatch(s.key)
	if id == nil {
		return "", errors.New("there is no key")
	}
	if _, err := s.Chancery(ctx, "apikey", "revoke", "--documents", s.Documents.Dir, id[1]); err != nil {
		return "", err
	}
	start := time.Now()
	err := s.eventually(ctx, 5*time.Second, request{path: "/stock/7", apiKey: s.key}, http.StatusUnauthorized)
	return fmt.Sprintf("401 after %s", round(time.Since(start))), err
}

// userRevoked asks the gateway with ada's token, and inventory's sidecar with
// her Passport, which was minted before.
func userRevoked(ctx context.Context, s *shop) (string, error) {
	stolen, err := s.stolen(ctx)
	if err != nil {
		return "", err
	}
	orders, err := s.svid("orders")
	if err != nil {
		return "", err
	}
	inside := s.inventory(anyServer(orders), stolen)
	start := time.Now()
	if _, err := s.Chancery(ctx, "revoke", "--subject", "ada", "--reason", "left", "--run", s.RunDir()); err != nil {
		return "", err
	}
	outside := s.eventually(ctx, time.Second-time.Since(start), request{path: "/orders/7", token: s.token}, http.StatusUnauthorized)
	behind := s.eventually(ctx, time.Second-time.Since(start), inside, http.StatusUnauthorized)
	return fmt.Sprintf("401 at the gateway and at inventory after %s", round(time.Since(start))), errors.Join(outside, behind)
}

func revocationUndone(ctx context.Context, s *shop) (string, error) {
	text, err := s.Chancery(ctx, "revoke", "list", "-o", "json", "--run", s.RunDir())
	if err != nil {
		return "", err
	}
	var list []struct{ ID, Subject string }
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) != 1 || list[0].Subject != "ada" {
		return "", fmt.Errorf("revocations are %s: %w", text, err)
	}
	if _, err := s.Chancery(ctx, "revoke", "undo", list[0].ID, "--run", s.RunDir()); err != nil {
		return "", err
	}
	start := time.Now()
	err = s.eventually(ctx, 2*time.Second, request{path: "/orders/7", token: s.token}, http.StatusOK)
	return fmt.Sprintf("200 after %s", round(time.Since(start))), err
}

// explained is what everybody asks first. The service refuses joe, so its agent
// knows why.
func explained(ctx context.Context, s *shop) (string, error) {
	token, err := s.Issuer.Token(ctx, map[string]any{"sub": "joe", "groups": []string{"visitors"}})
	if err != nil {
		return "", err
	}
	re, err := s.send(ctx, request{path: "/orders/7", token: token})
	if err != nil {
		return "", err
	}
	var problem struct{ Code, Decision string }
	if err := json.Unmarshal([]byte(re.body), &problem); err != nil {
		return re.String(), fmt.Errorf("no problem: %s", re.body)
	}
	why, err := s.Chancery(ctx, "explain", "--state", s.Instances("orders")[0].Agent.State, problem.Decision)
	rule := regexp.MustCompile(`orders\.yaml:\d+:\d+`).FindString(why)
	return fmt.Sprintf("%d %s; policy_denied by %s, user.groups", re.status, problem.Code, rule), errors.Join(err,
		expect(re.status == http.StatusForbidden && problem.Code == "forbidden", "answer: %s", re.body),
		expect(rule != "" && strings.Contains(why, "policy_denied") && strings.Contains(why, "visitors"), "it says:\n%s", why),
		expect(!strings.Contains(why, token) && !strings.Contains(re.body, "visitors"), "somebody is told too much"))
}
