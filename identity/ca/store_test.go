package ca_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/identity/ca"
)

// reopen closes a CA and opens it with another configuration.
func reopen(t *testing.T, authority *ca.CA, cfg ca.Config) *ca.CA {
	t.Helper()
	must(t, authority.Close())
	return open(t, cfg)
}

func assertRefused(t *testing.T, cfg ca.Config, want string) {
	t.Helper()
	authority, err := ca.Open(cfg)
	if err == nil {
		_ = authority.Close()
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Open: %v, want %q", err, want)
	}
}

func TestFilesAreTheOwnersAlone(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	authority := open(t, cfg)
	sign(t, authority, request(t, orders))
	entries, err := os.ReadDir(cfg.Dir)
	must(t, err)
	if len(entries) != 4 {
		t.Errorf("%d files, want authorities, ledger, lock and trust", len(entries))
	}
	for _, e := range entries {
		info, err := e.Info()
		must(t, err)
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
	must(t, authority.Close())
	for _, name := range []string{"authorities.json", "ledger", "trust.binpb"} {
		must(t, os.Chmod(filepath.Join(cfg.Dir, name), 0o640))
		assertRefused(t, cfg, "must be a file with mode 0600")
		must(t, os.Chmod(filepath.Join(cfg.Dir, name), 0o600))
	}
	must(t, os.Chmod(cfg.Dir, 0o755))
	assertRefused(t, cfg, "must be a directory with mode 0700")
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spoil func(t *testing.T, cfg *ca.Config)
		want  string
	}{
		"another trust domain": {func(_ *testing.T, cfg *ca.Config) { cfg.TrustDomain = "other.example" }, `of trust domain "shop.example", not "other.example"`},
		"no trust domain":      {func(_ *testing.T, cfg *ca.Config) { cfg.TrustDomain = "" }, "is not valid"},
		"no state":             {func(t *testing.T, cfg *ca.Config) { remove(t, *cfg, "authorities.json") }, "restore that from a backup"},
		"no ledger":            {func(t *testing.T, cfg *ca.Config) { remove(t, *cfg, "ledger") }, "with it what was revoked"},
		"no trust":             {func(t *testing.T, cfg *ca.Config) { remove(t, *cfg, "trust.binpb") }, "restore it from a backup"},
		"spoilt state":         {func(t *testing.T, cfg *ca.Config) { change(t, *cfg, "authorities.json", 0) }, "not a state file"},
		"spoilt ledger":        {func(t *testing.T, cfg *ca.Config) { change(t, *cfg, "ledger", 100) }, "line 1 cannot be read, and may be a revocation: its checksum is wrong"},
		"spoilt trust":         {func(t *testing.T, cfg *ca.Config) { change(t, *cfg, "trust.binpb", 0) }, "restore it from a backup"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t)
			authority := open(t, cfg)
			sign(t, authority, request(t, orders))
			must(t, authority.Close())
			test.spoil(t, &cfg)
			assertRefused(t, cfg, test.want)
		})
	}
	t.Run("a directory in use", func(t *testing.T) {
		t.Parallel()
		cfg := config(t)
		open(t, cfg)
		assertRefused(t, cfg, "another control plane uses it")
	})
}

func remove(t *testing.T, cfg ca.Config, name string) {
	t.Helper()
	must(t, os.Remove(filepath.Join(cfg.Dir, name)))
}

func change(t *testing.T, cfg ca.Config, name string, at int) {
	t.Helper()
	path := filepath.Join(cfg.Dir, name)
	data := readFile(t, path)
	data[at] ^= 1
	must(t, os.WriteFile(path, data, 0o600))
}

func TestEncryption(t *testing.T) {
	t.Parallel()
	cfg := ca.Guessable(config(t))
	path := filepath.Join(cfg.Dir, "authorities.json")
	authority := open(t, cfg)
	first := authority.Authorities()[0]
	if !holdsKey(t, path) {
		t.Error("without a passphrase, the test finds no key: it would find none in the other case, too")
	}
	cfg.Key = ca.KeyProtection("correct horse battery staple")
	authority = reopen(t, authority, cfg)
	if holdsKey(t, path) {
		t.Error("the key is in the clear though there is a passphrase")
	}
	if got := authority.Authorities()[0]; got.ID != first.ID {
		t.Errorf("authority is %s, was %s", got.ID, first.ID)
	}
	_, err := authority.Prepare(false)
	must(t, err)
	authority = reopen(t, authority, cfg)
	if n := len(authority.Authorities()); n != 2 {
		t.Errorf("%d authorities after a restart, want 2", n)
	}
	must(t, authority.Close())
	before := readFile(t, path)
	for want, key := range map[string]string{
		"does not decrypt: the passphrase or key file is another one": "incorrect horse battery staple",
		"give the passphrase or key file":                             "",
		"at least 8 are needed":                                       "short",
	} {
		wrong := cfg
		wrong.Key = ca.KeyProtection(key)
		assertRefused(t, wrong, want)
	}
	if !bytes.Equal(before, readFile(t, path)) {
		t.Error("a wrong passphrase changed the file")
	}
	// What was changed may not even be base64 any more.
	change(t, cfg, "authorities.json", len(before)-20)
	assertRefused(t, cfg, "read "+path)
}

func TestReadKeyProtection(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "passphrase")
	for content, want := range map[string]string{"correct horse\n": "correct horse", " \n": "", "1234567\n": ""} {
		must(t, os.WriteFile(path, []byte(content), 0o600))
		key, err := ca.ReadKeyProtection(path)
		if string(key) != want || (err == nil) != (want != "") {
			t.Errorf("%q reads as %q, %v", content, string(key), err)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v %s", ca.KeyProtection("secret"), ca.Config{Key: ca.KeyProtection("secret")}, ca.KeyProtection("secret"), ca.KeyProtection("secret")); strings.Contains(text, "secret") || strings.Contains(text, "115 101 99") {
		t.Errorf("the secret is printed: %s", text)
	}
	must(t, os.Chmod(path, 0o644))
	if _, err := ca.ReadKeyProtection(path); err == nil {
		t.Error("a passphrase that others can read is accepted")
	}
}

// holdsKey reports whether some base64 text of a file holds a private key.
func holdsKey(t *testing.T, path string) bool {
	t.Helper()
	for text := range strings.SplitSeq(string(readFile(t, path)), `"`) {
		der, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			continue
		}
		if _, err := x509.ParsePKCS8PrivateKey(der); err == nil {
			return true
		}
	}
	return false
}
