// Package certfile reads what operators put into files: the server certificates
// of gateways with their keys, and the certificates of those who sign their
// clients' certificates.
//
//	pair, err := certfile.ReadPair("/etc/chancery/certificates", "shop", time.Now())
//
// What it returns can be served: the key is that of the certificate, the chain is
// in order and all of it is valid now, and Envoy can work with the kind of key. An
// error says which file to mend, and how; it never quotes a file.
package certfile

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// The ends of the names of files.
const (
	// CertificateEnd is of a certificate chain, leaf first.
	CertificateEnd = ".crt"
	// KeyEnd is of the leaf's private key.
	KeyEnd = ".key"
	// TrustEnd is of certificates that sign clients' certificates.
	TrustEnd = ".ca.crt"
)

// maxSize bounds a file: some hundred certificates.
const maxSize = 1 << 20

// read reads a file of a directory. Symlinks are followed: they are how
// Kubernetes swaps files, and certbot. Nobody but the owner may have the
// permissions in forbidden.
func read(dir, name string, forbidden fs.FileMode) ([]byte, error) {
	if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return nil, fmt.Errorf("%q is not the name of a file", name)
	}
	path := filepath.Join(dir, name)
	// A pipe would hold up whoever opens it.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := check(path, info, forbidden); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxSize)
	}
	return data, nil
}

// check looks at the open file, so that it cannot be another one when it is
// read.
func check(path string, info fs.FileInfo, forbidden fs.FileMode) error {
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case mode.Perm()&forbidden != 0:
		return fmt.Errorf("%s has mode %#o, which lets others in: run chmod %#o %s", path, mode.Perm(), mode.Perm()&^forbidden, path)
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	if me := uint32(os.Geteuid()); owner != me && owner != 0 {
		return fmt.Errorf("%s belongs to user %d: it must belong to this process's user %d, or root", path, owner, me)
	}
	return nil
}
