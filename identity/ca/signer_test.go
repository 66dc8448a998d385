package ca_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/identity/ca"
)

// TestMain also is the signing command of an operator.
func TestMain(m *testing.M) {
	if path := os.Getenv("CHANCERY_TEST_SIGN_WITH"); path != "" {
		signAsCommand(path)
		return
	}
	os.Exit(m.Run())
}

// signAsCommand signs as [ca.CommandSigner] asks, with the key of a file.
func signAsCommand(path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	block, _ := pem.Decode(data)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		panic(err)
	}
	digest, err := io.ReadAll(os.Stdin)
	if err != nil || len(digest) != sha256.Size || len(os.Getenv("CHANCERY_KEY_ID")) != 40 {
		panic("not asked for a signature")
	}
	signature, err := ecdsa.SignASN1(rand.Reader, key.(*ecdsa.PrivateKey), digest)
	if err != nil {
		panic(err)
	}
	_, _ = os.Stdout.Write(signature)
}

// external supplies certificates alone, and a command that has the key.
func (p *pki) external(t *testing.T, key *ecdsa.PrivateKey, certs ...*x509.Certificate) *ca.Supplied {
	t.Helper()
	s := p.supply(t, key, certs...)
	s.Signer = ca.CommandSigner([]string{"/usr/bin/env", "CHANCERY_TEST_SIGN_WITH=" + s.Key, os.Args[0]}, 10*time.Second)
	s.Key = ""
	return s
}

func TestExternalSigner(t *testing.T) {
	t.Parallel()
	t.Run("of an issuing authority", func(t *testing.T) {
		t.Parallel()
		p := newPKI(t, nil)
		cfg := config(t)
		cfg.Supplied = p.external(t, p.issueKey, p.issuing, p.root)
		authority := assertWorks(t, cfg, p.root)
		if !authority.Authorities()[0].External || holdsKey(t, filepath.Join(cfg.Dir, "authorities.json")) {
			t.Error("the key is in the state file")
		}
		must(t, authority.Close())
		cfg.Supplied = nil
		assertRefused(t, cfg, "its private key is kept by an external signer: configure that")
	})
	t.Run("of a root", func(t *testing.T) {
		t.Parallel()
		p := newPKI(t, nil)
		cfg := config(t)
		cfg.Supplied = p.external(t, p.rootKey, p.root)
		assertWorks(t, cfg, p.root)
	})
	t.Run("that has another key", func(t *testing.T) {
		t.Parallel()
		p := newPKI(t, nil)
		cfg := config(t)
		cfg.Supplied = p.external(t, p.rootKey, p.issuing, p.root)
		assertRefused(t, cfg, "its answer is not a signature of key")
	})
}

func TestCommandSigner(t *testing.T) {
	t.Parallel()
	cert := newPKI(t, nil).issuing
	for name, test := range map[string]struct {
		command []string
		hash    crypto.Hash
		want    string
	}{
		"fails":           {[]string{"/bin/false"}, crypto.SHA256, "exit status 1"},
		"is not there":    {[]string{"/nowhere/sign"}, crypto.SHA256, "/nowhere/sign"},
		"says nothing":    {[]string{"/bin/true"}, crypto.SHA256, "not a signature"},
		"echoes":          {[]string{"/bin/cat"}, crypto.SHA256, "not a signature"},
		"never ends":      {[]string{"/bin/sleep", "60"}, crypto.SHA256, "no answer in 100ms"},
		"says too much":   {[]string{"/usr/bin/yes"}, crypto.SHA256, "signing command /usr/bin/yes"},
		"of another hash": {[]string{"/bin/cat"}, crypto.SHA384, "takes SHA-256 digests"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			signer, err := ca.CommandSigner(test.command, 100*time.Millisecond)(cert)
			must(t, err)
			digest := sha256.Sum256(nil)
			if _, err := signer.Sign(rand.Reader, digest[:], test.hash); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Sign: %v, want %q", err, test.want)
			}
		})
	}
	for _, timeout := range []time.Duration{0, time.Second} {
		if _, err := ca.CommandSigner(nil, timeout)(cert); err == nil {
			t.Error("no command is accepted")
		}
	}
}
