package controlplane_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/identity/ca"
)

// supplyRoot makes a root whose key is in a file of its own.
func supplyRoot(t *testing.T) *ca.Supplied {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(100 * authorityLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	supplied := &ca.Supplied{Certificates: filepath.Join(dir, "root.crt"), Key: filepath.Join(dir, "root.key")}
	for path, block := range map[string]*pem.Block{
		supplied.Certificates: {Type: "CERTIFICATE", Bytes: cert},
		supplied.Key:          {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return supplied
}

func TestRotationWithoutTheKeyOfTheRoot(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.stop()
		f.supplied, f.agents = supplyRoot(t), nil
		f.dir = t.TempDir() + "/ca"
		f.start()
		away := f.supplied.Key + ".away"
		if err := os.Rename(f.supplied.Key, away); err != nil {
			t.Fatal(err)
		}
		f.join(orders)
		loud := func() int { return strings.Count(f.log.String(), "rotation of the authority failed") }
		next := func() controlplane.StepStatus { return f.driver.Next(f.ca)[0] }

		f.pass(authorityLife/2 - time.Minute)
		if problem := next().Problem(); loud() != 0 || problem != "" {
			t.Fatalf("there is a problem before the step is due: %q", problem)
		}
		f.pass(2 * time.Minute)
		for _, want := range []string{"root.key: no such file", "the active authority ends at " + next().Ends.Format(time.RFC3339)} {
			if got := next().Problem(); !strings.Contains(got, want) {
				t.Errorf("problem is %q, want %q", got, want)
			}
		}
		if loud() != 1 || !f.log.has("mend=\"bring back the key of --ca-key") {
			t.Errorf("said %d times, want once, with what to do:\n%s", loud(), f.log)
		}
		if n := f.metric("chancery_rotation_failures_total"); n < 5 || n > 10 {
			t.Errorf("%v tries in the first minute, want fewer and fewer", n)
		}

		// Louder as the end comes: after half of what was left, and again.
		f.pass(15 * time.Minute)
		if loud() != 2 {
			t.Errorf("said %d times when half of the time is over, want 2", loud())
		}
		f.pass(11 * time.Minute)
		if loud() != 4 {
			t.Errorf("said %d times when 7/8 of the time is over, want 4", loud())
		}
		f.agents[0].lost = true
		f.pass(10 * time.Minute)
		if got := next().Problem(); !strings.Contains(got, "the active authority ended at") {
			t.Errorf("problem after the end is %q", got)
		}
		tries := f.metric("chancery_rotation_failures_total")
		if tries > 300 {
			t.Errorf("%v tries within half of the authority's life", tries)
		}
		if len(f.failed) != 1 || !strings.Contains(f.failed[0], "prepare by rotation") {
			t.Errorf("taken down: %q, want the first failure alone", f.failed)
		}

		// Another cause is news; and an operator's own try always is.
		if err := os.WriteFile(f.supplied.Key, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		f.pass(time.Minute)
		if len(f.failed) != 2 {
			t.Errorf("taken down: %q, want two", f.failed)
		}
		for range 2 {
			if err := f.driver.Prepare(f.ca); err == nil {
				t.Fatal("prepared without a key")
			}
		}
		if len(f.failed) != 4 || !strings.Contains(f.failed[3], "by test") {
			t.Errorf("taken down: %q, want four", f.failed)
		}

		if err := os.Rename(away, f.supplied.Key); err != nil {
			t.Fatal(err)
		}
		f.pass(time.Minute)
		for _, step := range f.driver.Next(f.ca) {
			if step.Problem() != "" {
				t.Errorf("problem of what is mended: %q", step.Problem())
			}
		}
		if !strings.HasSuffix(f.states(), "active") || f.metric("chancery_rotation_steps_total") < 2 {
			t.Errorf("authorities are %q", f.states())
		}
	})
}
