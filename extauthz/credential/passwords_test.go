package credential_test

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/chancery-mesh/chancery/extauthz/credential"
)

func users(t testing.TB, list ...credential.User) *credential.Users {
	t.Helper()
	u, err := credential.NewUsers("staff", list)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func bcryptOf(t testing.TB, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), 10)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}

var home = netip.MustParseAddr("192.0.2.1")

func TestPasswords(t *testing.T) {
	t.Parallel()
	argon, err := credential.HashPassword("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	u := users(t,
		credential.User{Name: "alice", Hash: argon, Groups: []string{"sales"}, Tenant: "acme"},
		credential.User{Name: "bob", Hash: bcryptOf(t, "battery staple")},
		credential.User{Name: "carol", Hash: argon, Disabled: true},
	)
	p := credential.NewPasswords()
	for name, row := range map[string]struct {
		basic credential.Basic
		want  error
	}{
		"argon2id":          {credential.Basic{User: "alice", Password: "correct horse"}, nil},
		"argon2id again":    {credential.Basic{User: "alice", Password: "correct horse"}, nil},
		"bcrypt":            {credential.Basic{User: "bob", Password: "battery staple"}, nil},
		"other's password":  {credential.Basic{User: "bob", Password: "correct horse"}, credential.BadPassword},
		"unknown":           {credential.Basic{User: "dave", Password: "correct horse"}, credential.BadPassword},
		"B04 other case":    {credential.Basic{User: "Alice", Password: "correct horse"}, credential.BadPassword},
		"B09 disabled":      {credential.Basic{User: "carol", Password: "correct horse"}, credential.UserDisabled},
		"disabled, guessed": {credential.Basic{User: "carol", Password: "guess"}, credential.BadPassword},
	} {
		id, err := p.Verify(t.Context(), u, row.basic, home, now)
		if !errors.Is(err, row.want) || err == nil && id.User != row.basic.User {
			t.Errorf("%s: %v, %v, want %v", name, id, err, row.want)
		}
	}
}
