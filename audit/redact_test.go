package audit_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/audit"
)

var key = bytes.Repeat([]byte{7}, 32)

func redactor(t *testing.T, r audit.Redaction, key []byte) *audit.Redactor {
	t.Helper()
	made, err := audit.NewRedactor(r, key)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestRedactorApply(t *testing.T) {
	t.Parallel()
	const hashed = "hmac:"
	for name, row := range map[string]struct {
		redactor                        *audit.Redactor
		ip                              string
		user, tenant, client, ip2, path string
	}{
		"nil":          {nil, "192.0.2.77", "alice", "acme", "web", "192.0.2.0/24", "/orders/7"},
		"by default":   {redactor(t, audit.Redaction{}, nil), "192.0.2.77", "alice", "acme", "web", "192.0.2.0/24", "/orders/7"},
		"IPv6":         {nil, "2001:db8:1:2:3::4", "alice", "acme", "web", "2001:db8:1::/48", "/orders/7"},
		"IPv4 in IPv6": {nil, "::ffff:192.0.2.77", "alice", "acme", "web", "192.0.2.0/24", "/orders/7"},
		"no address":   {nil, "alice's", "alice", "acme", "web", "", "/orders/7"},
		"all kept": {
			redactor(t, audit.Redaction{User: audit.Keep, Tenant: audit.Keep, Client: audit.Keep, IP: audit.Keep, Path: audit.Keep}, nil),
			"192.0.2.77", "alice", "acme", "web", "192.0.2.77", "/orders/7",
		},
		"all left out": {
			redactor(t, audit.Redaction{User: audit.Omit, Tenant: audit.Omit, Client: audit.Omit, IP: audit.Omit, Path: audit.Omit}, nil),
			"192.0.2.77", "", "", "", "", "",
		},
		"all hashed": {
			redactor(t, audit.Redaction{User: audit.Hash, Tenant: audit.Hash, Client: audit.Hash, IP: audit.Hash, Path: audit.Hash}, key),
			"192.0.2.77", hashed, hashed, hashed, hashed, hashed,
		},
		"pattern": {redactor(t, audit.Redaction{Path: audit.Pattern}, nil), "192.0.2.77", "alice", "acme", "web", "192.0.2.0/24", "/orders/{id}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := full()
			d.IP, d.Path = row.ip, "/orders/7?secret"
			row.redactor.Apply(d)
			for field, is := range map[string]struct{ got, want string }{
				"user": {d.User, row.user}, "tenant": {d.Tenant, row.tenant}, "client": {d.Client, row.client}, "ip": {d.IP, row.ip2}, "path": {d.Path, row.path},
			} {
				if is.want == hashed && len(is.got) == len(hashed)+16 && strings.HasPrefix(is.got, hashed) {
					continue
				}
				if is.got != is.want {
					t.Errorf("%s is %q, want %q", field, is.got, is.want)
				}
			}
		})
	}
}

// A03: equal users stay comparable, in one installation and nowhere else, and
// a user without a name is not one with the hash of nothing.
func TestHashes(t *testing.T) {
	t.Parallel()
	hash := func(key []byte, user string) string {
		d := &audit.Decision{User: user}
		redactor(t, audit.Redaction{User: audit.Hash}, key).Apply(d)
		return d.User
	}
	other := bytes.Repeat([]byte{8}, 32)
	alice := hash(key, "alice")
	if hash(key, "alice") != alice || hash(key, "bob") == alice || hash(other, "alice") == alice {
		t.Error("hashes do not tell users apart by key")
	}
	if got := hash(key, ""); got != "" {
		t.Errorf("nobody is %q", got)
	}
}

func TestNewRedactorRefuses(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]audit.Redaction{
		"no key":                {User: audit.Hash},
		"a word of its own":     {Client: "hide"},
		"network of a user":     {User: audit.Network},
		"pattern of a tenant":   {Tenant: audit.Pattern},
		"network of a path":     {Path: audit.Network},
		"pattern of an address": {IP: audit.Pattern},
	} {
		if _, err := audit.NewRedactor(r, key[:16]); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
