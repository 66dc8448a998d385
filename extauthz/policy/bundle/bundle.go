// Package bundle reads policies from OPA bundles: tarballs with modules, data, a
// manifest and, in .signatures.json, a signature over all of them. What counts
// of a bundle's form is what OPA's library says; this package bounds what it
// gets to read, and demands more where a key is given:
//
//   - the bundle is signed by that key, whatever it says of itself;
//   - it says how new it is, and is never followed by an older one, however well
//     that is signed ([Version]).
//
// Bundles with WebAssembly, and those of changes alone (delta bundles), are
// refused. [Watcher] gets bundles from a file or over HTTP.
package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	opabundle "github.com/open-policy-agent/opa/v1/bundle"

	"github.com/chancery-mesh/chancery/extauthz/policy/rego"
	"github.com/chancery-mesh/chancery/mesh"
)

// Bundle is one that was read.
type Bundle struct {
	Source  rego.Source
	Version Version
	// digest is of the whole archive.
	digest [sha256.Size]byte
}

// Options say what a bundle must be.
type Options struct {
	// Keys are those of whom bundles must be signed by, one of them. Without
	// keys a bundle that is signed is refused, for nobody can tell by whom.
	Keys Keys
	// Scope is what signatures must say that they are for; empty is none.
	Scope string
	// RegoVersion is that of modules of which the manifest does not say; see
	// [rego.Module].
	RegoVersion ast.RegoVersion
}

// ErrSignature says that a bundle is not signed as it must be.
var ErrSignature = errors.New("signature")

// Open reads a bundle. The error wraps [ErrSignature] or is of [mesh.Faults], or
// says what else is wrong.
func Open(data []byte, o Options) (*Bundle, error) {
	archive, err := unpack(data)
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	verification, signed, err := verify(archive, o)
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w: %w", ErrSignature, err)
	}
	b, err := opabundle.NewCustomReader(archive).
		WithBundleVerificationConfig(verification).
		WithRegoVersion(o.RegoVersion).
		WithLazyLoadingMode(false).
		Read()
	if err != nil {
		return nil, readError(err)
	}
	if len(b.WasmModules) > 0 || b.Type() != opabundle.SnapshotBundleType {
		return nil, errors.New("read bundle: it holds WebAssembly, or changes alone: neither is supported")
	}
	version := Version{Revision: b.Manifest.Revision, IssuedAt: signed.IssuedAt}
	if verification != nil && !version.ordered() {
		return nil, fmt.Errorf("read bundle: %w: it does not say how new the bundle is: sign it with an "+
			`"iat" claim, or give it a revision such as 42, 1.2.3 or 2026-11-22T10:00:00Z`, ErrSignature)
	}
	source := rego.Source{Data: b.Data, Revision: version.String()}
	for _, m := range b.Modules {
		regoVersion, err := b.RegoVersionForFile(m.RelativePath, b.RegoVersion(o.RegoVersion))
		if err != nil {
			return nil, fmt.Errorf("read bundle: %w", err)
		}
		source.Modules = append(source.Modules, rego.Module{File: m.Path, Text: string(m.Raw), Version: regoVersion})
	}
	return &Bundle{Source: source, Version: version, digest: sha256.Sum256(data)}, nil
}

// readError gives OPA's errors our form.
func readError(err error) error {
	if errs, ok := errors.AsType[ast.Errors](err); ok {
		return rego.Faults(errs)
	}
	if _, ok := errors.AsType[mesh.Faults](err); ok {
		return err
	}
	return fmt.Errorf("read bundle: %w", err)
}

// verify finds the key that an archive is signed by. Without keys it returns nil
// for what OPA is to verify by, and refuses signed archives.
func verify(a *archive, o Options) (*opabundle.VerificationConfig, *opabundle.DecodedSignature, error) {
	content, there := a.file(signatures)
	switch {
	case len(o.Keys) == 0 && !there:
		return nil, &opabundle.DecodedSignature{}, nil
	case len(o.Keys) == 0:
		return nil, nil, errors.New("the bundle is signed, and there is no key to verify it by")
	case !there:
		return nil, nil, errors.New("the bundle is not signed")
	}
	var config opabundle.SignaturesConfig
	if err := json.Unmarshal(content, &config); err != nil {
		return nil, nil, fmt.Errorf("%s is not JSON", signatures)
	}
	if config.Plugin != "" && config.Plugin != "_default" || len(config.Signatures) != 1 {
		return nil, nil, fmt.Errorf("%s must hold one JWT, of OPA's own form", signatures)
	}
	var faults []error
	for _, key := range o.Keys {
		verification := key.verification(o.Scope)
		_, err := opabundle.VerifyBundleSignature(config, verification)
		if err == nil {
			signed, err := payload(config.Signatures[0])
			return verification, signed, err
		}
		faults = append(faults, fmt.Errorf("key %s: %w", key.ID, err))
	}
	return nil, nil, errors.Join(faults...)
}

// payload reads what was signed. The signature was verified.
func payload(jwt string) (*opabundle.DecodedSignature, error) {
	parts := strings.Split(jwt, ".")
	text, err := base64.RawURLEncoding.DecodeString(parts[min(1, len(parts)-1)])
	if err != nil {
		return nil, err
	}
	var signed opabundle.DecodedSignature
	return &signed, json.NewDecoder(bytes.NewReader(text)).Decode(&signed)
}
