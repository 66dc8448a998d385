package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/chancery-mesh/chancery/controlplane"
)

// settled waits until the control plane in a directory has taken its documents
// or refused them.
func settled(ts *testscript.TestScript, _ bool, args []string) {
	client := controlplane.NewAdminClient(ts.MkAbs(args[0]))
	deadline := time.Now().Add(5 * time.Minute) // scrypt takes its time under the race detector
	for {
		status, err := client.Status(context.Background())
		if err == nil && (status.Authority != nil || len(status.Documents.Faults) > 0) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("control plane has not settled: %+v, %v", status, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// pki writes an operator's root and an issuing certificate under it, past half
// of its life if the argument is "late", and sets ROOT to the root's fingerprint.
func pki(ts *testscript.TestScript, _ bool, args []string) {
	age := time.Minute
	if len(args) > 0 {
		age = 200 * 24 * time.Hour
	}
	root, rootKey := authorityCertificate(ts, "root", age, nil, nil)
	issuing, issuingKey := authorityCertificate(ts, "issuing", age, root, rootKey)
	writePEM(ts, "root.crt", "CERTIFICATE", root.Raw)
	writePEM(ts, "issuing.crt", "CERTIFICATE", issuing.Raw, root.Raw)
	for name, key := range map[string]*ecdsa.PrivateKey{"root.key": rootKey, "issuing.key": issuingKey} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		ts.Check(err)
		writePEM(ts, name, "PRIVATE KEY", der)
	}
	fingerprint := sha256.Sum256(root.Raw)
	ts.Setenv("ROOT", hex.EncodeToString(fingerprint[:]))
}

func authorityCertificate(ts *testscript.TestScript, name string, age time.Duration, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), nil)
	ts.Check(err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-age), NotAfter: time.Now().Add(100 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
	}
	if parent == nil {
		parent, parentKey = c, key
	}
	der, err := x509.CreateCertificate(nil, c, parent, key.Public(), parentKey)
	ts.Check(err)
	c, err = x509.ParseCertificate(der)
	ts.Check(err)
	return c, key
}

func writePEM(ts *testscript.TestScript, name, kind string, blocks ...[]byte) {
	var data []byte
	for _, der := range blocks {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	ts.Check(os.WriteFile(ts.MkAbs(name), data, 0o600))
}

// sign signs with issuing.key, in place of an HSM, and notes that it did.
func sign() {
	data, err := os.ReadFile("issuing.key")
	check(err)
	block, _ := pem.Decode(data)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	check(err)
	digest, err := io.ReadAll(os.Stdin)
	check(err)
	signature, err := ecdsa.SignASN1(rand.Reader, key.(*ecdsa.PrivateKey), digest)
	check(err)
	check(os.WriteFile("signed-by", []byte(os.Getenv("CHANCERY_KEY_ID")), 0o600))
	_, err = os.Stdout.Write(signature)
	check(err)
}
