package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

const (
	maxSignature = 1 << 10
	// maxCommands run at the same time.
	maxCommands = 8
)

// CommandSigner returns a [Supplied.Signer] that runs a command for each
// signature, for keys in an HSM or a vault. The command gets a SHA-256 digest,
// 32 bytes, on standard input, and the certificate's subject key identifier in
// hex in the environment variable CHANCERY_KEY_ID; it answers with an ASN.1
// ECDSA signature (DER) on standard output, within timeout. An answer that
// does not verify against the certificate is an error.
func CommandSigner(command []string, timeout time.Duration) func(*x509.Certificate) (crypto.Signer, error) {
	slots := make(chan struct{}, maxCommands)
	return func(cert *x509.Certificate) (crypto.Signer, error) {
		key, ok := cert.PublicKey.(*ecdsa.PublicKey)
		if !ok || len(command) == 0 || timeout <= 0 {
			return nil, errors.New("an ECDSA certificate, a command and a timeout are needed")
		}
		return &commandSigner{command: command, timeout: timeout, slots: slots, key: key, id: hex.EncodeToString(cert.SubjectKeyId)}, nil
	}
}

type commandSigner struct {
	command []string
	timeout time.Duration
	slots   chan struct{}
	key     *ecdsa.PublicKey
	id      string
}

// Public implements crypto.Signer.
func (s *commandSigner) Public() crypto.PublicKey { return s.key }

// Sign implements crypto.Signer.
func (s *commandSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 {
		return nil, fmt.Errorf("signing command takes SHA-256 digests, not %v", opts.HashFunc())
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("signing command %s: %d of them have not answered in %v", s.command[0], maxCommands, s.timeout)
	}
	signature, err := s.run(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("signing command %s: %w", s.command[0], err)
	}
	if !ecdsa.VerifyASN1(s.key, digest, signature) {
		return nil, fmt.Errorf("signing command %s: its answer is not a signature of key %s", s.command[0], s.id)
	}
	return signature, nil
}

func (s *commandSigner) run(ctx context.Context, digest []byte) ([]byte, error) {
	var out limitedBuffer
	cmd := exec.CommandContext(ctx, s.command[0], s.command[1:]...) //nolint:gosec // the operator's own command
	cmd.Env = append(os.Environ(), "CHANCERY_KEY_ID="+s.id)
	cmd.Stdin = bytes.NewReader(digest)
	cmd.Stdout = &out
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("no answer in %v", s.timeout)
		}
		return nil, err
	}
	return out.Bytes(), nil
}

// limitedBuffer takes no more than a signature needs.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxSignature {
		return 0, fmt.Errorf("answer is longer than %d bytes", maxSignature)
	}
	return b.Buffer.Write(p)
}
