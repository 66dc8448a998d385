package consultest

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// StartWithACLs runs a Consul that denies what no token allows. The server's
// own client may do everything.
func StartWithACLs(t testing.TB) *Server {
	t.Helper()
	return startWithACLs(t, "deny")
}

// StartWithOpenACLs runs a Consul that has ACLs and allows everybody everything.
func StartWithOpenACLs(t testing.TB) *Server {
	t.Helper()
	return startWithACLs(t, "allow")
}

func startWithACLs(t testing.TB, policy string) *Server {
	t.Helper()
	token := uuid()
	more := fmt.Sprintf(`, "acl": {"enabled": true, "default_policy": %q,
		"tokens": {"initial_management": %q, "agent": %q}}`, policy, token, token)
	s := start(t, more, token)
	// The token is made by the leader, a moment after its election.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, _, err := s.Client.ACL().TokenReadSelf(nil)
		if err == nil {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("consul's ACLs are not ready after 30s: %v", err)
		}
	}
}

// ServiceToken returns how to reach the server with a token that may write the
// service of that very name, and nothing else.
func (s *Server) ServiceToken(t testing.TB, name string) *api.Config {
	t.Helper()
	return s.Token(t, fmt.Sprintf(`service %q { policy = "write" }`, name))
}

// Token returns how to reach the server with a token that has these ACL rules.
func (s *Server) Token(t testing.TB, rules string) *api.Config {
	t.Helper()
	policy, _, err := s.Client.ACL().PolicyCreate(&api.ACLPolicy{Name: uuid(), Rules: rules}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := s.Client.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	config := *s.config
	config.Token = token.SecretID
	return &config
}

// uuid returns a random one.
func uuid() string {
	b := make([]byte, 16)
	rand.Read(b)
	text := hex.EncodeToString(b)
	return fmt.Sprintf("%s-%s-%s-%s-%s", text[:8], text[8:12], text[12:16], text[16:20], text[20:])
}

// Anybody gives these ACL rules to those who have no token.
func (s *Server) Anybody(t testing.TB, rules string) {
	t.Helper()
	policy, _, err := s.Client.ACL().PolicyCreate(&api.ACLPolicy{Name: uuid(), Rules: rules}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const anonymous = "00000000-0000-0000-0000-000000000002"
	token := &api.ACLToken{AccessorID: anonymous, Policies: []*api.ACLLink{{ID: policy.ID}}}
	if _, _, err := s.Client.ACL().TokenUpdate(token, nil); err != nil {
		t.Fatal(err)
	}
}
