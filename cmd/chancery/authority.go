package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/identity/ca"
)

// signerTimeout is how long an agent may wait for its certificate.
const signerTimeout = 10 * time.Second

// authorityFlags say where the certificate authority's keys are. Secrets are in
// files: arguments can be read by every user of a host.
type authorityFlags struct{ keyFile, certificate, key, signer string }

func (f *authorityFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.keyFile, "ca-key-file", "", "file with the passphrase or key that encrypts the authority's keys in --state (default none: mode 0600)")
	flags.StringVar(&f.certificate, "ca-certificate", "", "PEM file with your own root, or with an issuing certificate and then its root (default a root is made)")
	flags.StringVar(&f.key, "ca-key", "", "PEM file with the private key of the first of --ca-certificate")
	flags.StringVar(&f.signer, "ca-signer", "", "program that signs with that key, instead of --ca-key")
}

// config reads the flags. The files of an authority that is supplied are read
// when one is made: a root's key may be offline until then.
func (f *authorityFlags) config() (controlplane.AuthorityConfig, error) {
	var config controlplane.AuthorityConfig
	if f.keyFile != "" {
		key, err := ca.ReadKeyProtection(f.keyFile)
		if err != nil {
			var hint string
			if errors.Is(err, fs.ErrNotExist) {
				hint = "for a new authority: (umask 077; openssl rand -base64 32 > " + f.keyFile + ")"
			}
			return config, &faultError{err: fmt.Errorf("--ca-key-file: %w", err), hint: hint}
		}
		config.Key = key
	}
	var err error
	config.Supplied, err = f.supplied()
	return config, err
}

// supplied returns nil if the authority is to make its own root.
func (f *authorityFlags) supplied() (*ca.Supplied, error) {
	switch {
	case f.certificate == "" && f.key == "" && f.signer == "":
		return nil, nil //nolint:nilnil // nothing is supplied, which is no error
	case f.certificate == "":
		return nil, errors.New("--ca-key and --ca-signer are for a certificate: give --ca-certificate, too")
	case f.key == "" && f.signer == "":
		return nil, errors.New("--ca-certificate cannot sign: give --ca-key or --ca-signer, too")
	case f.key != "" && f.signer != "":
		return nil, errors.New("--ca-key and --ca-signer exclude each other: a key is in a file or elsewhere")
	}
	supplied := &ca.Supplied{Certificates: f.certificate, Key: f.key}
	if f.signer != "" {
		program, err := exec.LookPath(f.signer)
		if err == nil {
			program, err = filepath.Abs(program)
		}
		if err != nil {
			return nil, &faultError{
				err:  fmt.Errorf("--ca-signer: %w", err),
				hint: "name one program, without arguments: chmod +x " + f.signer,
			}
		}
		supplied.Signer = ca.CommandSigner([]string{program}, signerTimeout)
	}
	return supplied, nil
}
