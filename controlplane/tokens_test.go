package controlplane_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/identity"
)

func TestTokens(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.dial(orders)
	token, err := r.admin.CreateToken(t.Context(), orders, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if token.Workload != "service/orders" || time.Until(token.Expires) < 59*time.Minute || !strings.HasPrefix(token.Secret, "chj_"+token.ID+"_") {
		t.Errorf("token: %+v", token)
	}
	list, err := r.admin.Tokens(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != token.ID || !list[0].Used.IsZero() {
		t.Errorf("list: %+v, %v", list, err)
	}
	revoked, err := r.admin.Revoke(t.Context(), controlplane.Revocation{Service: "orders"})
	if err != nil || len(revoked.Tokens) != 1 || revoked.Tokens[0] != token.ID {
		t.Errorf("a revocation does not tell that a token is left: %+v, %v", revoked, err)
	}
	if err := r.admin.DeleteToken(t.Context(), token.ID); err != nil {
		t.Error(err)
	}
	if err := r.admin.DeleteToken(t.Context(), token.ID); err == nil {
		t.Error("it was deleted twice")
	}
	if list, err := r.admin.Tokens(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("list: %+v, %v", list, err)
	}

	secret := strings.Split(token.Secret, "_")[2]
	record, err := os.ReadFile(filepath.Join(r.state, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"join token created", "certificates revoked", "join token deleted", "uid "} {
		if !strings.Contains(string(record), want) {
			t.Errorf("the audit log does not say %q", want)
		}
	}
	if strings.Contains(string(record), secret) || r.log.has(secret) {
		t.Error("the secret is in the audit log, or in the log")
	}
}

func TestTokenRefusals(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.dial(orders)
	for name, test := range map[string]struct {
		workload identity.ID
		ttl      time.Duration
		want     int
	}{
		"nobody's":       {identity.ID{Role: identity.RoleService, Name: "payments"}, time.Hour, http.StatusNotFound},
		"another role":   {identity.ID{Role: identity.RoleGateway, Name: "orders"}, time.Hour, http.StatusNotFound},
		"looks alike":    {identity.ID{Role: identity.RoleService, Name: "Orders"}, time.Hour, http.StatusBadRequest},
		"control plane":  {identity.ControlPlane, time.Hour, http.StatusBadRequest},
		"for ever":       {orders, 1000 * time.Hour, http.StatusBadRequest},
		"ended long ago": {orders, -time.Hour, http.StatusBadRequest},
	} {
		_, err := r.admin.CreateToken(t.Context(), test.workload, test.ttl)
		if answer, ok := errors.AsType[*controlplane.AnswerError](err); !ok || answer.Status != test.want {
			t.Errorf("%s: %v, want status %d", name, err, test.want)
		}
	}
}
