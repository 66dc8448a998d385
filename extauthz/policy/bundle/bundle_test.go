package bundle_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	opabundle "github.com/open-policy-agent/opa/v1/bundle"

	"github.com/chancery-mesh/chancery/extauthz/policy/bundle"
	"github.com/chancery-mesh/chancery/extauthz/policy/rego"
	"github.com/chancery-mesh/chancery/mesh"
)

// signer signs bundles.
type signer struct {
	private   string // PEM
	algorithm string
	key       bundle.Key
}

func newSigner(t testing.TB, private crypto.Signer, algorithm string) signer {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := bundle.ParseKey("key", publicPEM(t, private.Public()))
	if err != nil {
		t.Fatal(err)
	}
	return signer{string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), algorithm, key}
}

func publicPEM(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func ecdsaSigner(t testing.TB) signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return newSigner(t, private, "ES256")
}

const module = "package shop\nallow := data.answer"

// parts are what bundles are made of.
type parts struct {
	revision string
	answer   int
	module   string // module by default
	signer   *signer
	claims   map[string]any
}

// make makes a bundle as "opa build" does.
func (p parts) make(t testing.TB) []byte {
	t.Helper()
	if p.module == "" {
		p.module = module
	}
	parsed, err := ast.ParseModule("shop.rego", p.module)
	if err != nil {
		t.Fatal(err)
	}
	b := opabundle.Bundle{
		Manifest: opabundle.Manifest{Revision: p.revision},
		Data:     map[string]any{"answer": p.answer},
		Modules:  []opabundle.ModuleFile{{URL: "shop.rego", Path: "/shop.rego", Raw: []byte(p.module), Parsed: parsed}},
	}
	b.Manifest.Init()
	if p.signer != nil {
		claims := ""
		if p.claims != nil {
			claims = filepath.Join(t.TempDir(), "claims.json")
			text, err := json.Marshal(p.claims)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(claims, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.GenerateSignature(opabundle.NewSigningConfig(p.signer.private, p.signer.algorithm, claims), "whatever", true); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := opabundle.NewWriter(&out).UseModulePath(true).DisableFormat(true).Write(b); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func answer(t testing.TB, s rego.Source) any {
	t.Helper()
	policy, err := rego.Compile(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	q, err := policy.Prepare(t.Context(), "data.shop.allow", rego.Options{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := q.Eval(t.Context(), nil, now)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestOpen(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other := ecdsaSigner(t)
	for name, s := range map[string]signer{
		"RS256": newSigner(t, rsaKey, "RS256"), "ES256": ecdsaSigner(t), "ES384": newSigner(t, p384, "ES384"), "EdDSA": newSigner(t, edwards, "EdDSA"),
	} {
		for _, keys := range []bundle.Keys{{s.key}, {other.key, s.key}} {
			b, err := bundle.Open(parts{revision: "7", answer: 42, signer: &s}.make(t), bundle.Options{Keys: keys})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if got := answer(t, b.Source); got != json.Number("42") || b.Source.Revision != "7" {
				t.Errorf("%s: %v, revision %q", name, got, b.Source.Revision)
			}
		}
	}
	unsigned, err := bundle.Open(parts{answer: 1}.make(t), bundle.Options{})
	if err != nil || answer(t, unsigned.Source) != json.Number("1") {
		t.Errorf("unsigned, without keys: %v", err)
	}
}

// R08: what is not signed as it must be.
func TestOpenRefusesSignatures(t *testing.T) {
	t.Parallel()
	s, other := ecdsaSigner(t), ecdsaSigner(t)
	good := parts{revision: "7", signer: &s}
	signed := unpack(t, good.make(t))
	token := func(change func(header, payload, signature string) string) map[string]string {
		files := maps.Clone(signed)
		var config struct{ Signatures []string }
		if err := json.Unmarshal([]byte(signed["/.signatures.json"]), &config); err != nil {
			t.Fatal(err)
		}
		jwt := strings.Split(config.Signatures[0], ".")
		files["/.signatures.json"] = fmt.Sprintf(`{"signatures": [%q]}`, change(jwt[0], jwt[1], jwt[2]))
		return files
	}
	with := func(name, content string) map[string]string {
		files := token(func(h, p, s string) string { return h + "." + p + "." + s })
		files[name] = content
		return files
	}
	without := func(name string) map[string]string {
		files := with(name, "")
		delete(files, name)
		return files
	}
	b64 := base64.RawURLEncoding.EncodeToString
	if _, err := bundle.Open(pack(t, with("/.manifest", signed["/.manifest"])), bundle.Options{Keys: bundle.Keys{s.key}}); err != nil {
		t.Fatalf("packed anew: %v", err)
	}
	for name, data := range map[string][]byte{
		"unsigned":                parts{revision: "7"}.make(t),
		"of another key":          parts{revision: "7", signer: &other}.make(t),
		"without a version":       parts{signer: &s}.make(t),
		"of a version of no use":  parts{revision: "3f2a9c1", signer: &s}.make(t),
		"with a scope":            parts{revision: "7", signer: &s, claims: map[string]any{"scope": "write"}}.make(t),
		"a module changed":        pack(t, with("/shop.rego", module+"\n# changed")),
		"the data changed":        pack(t, with("/data.json", `{"answer": 1}`)),
		"the manifest changed":    pack(t, with("/.manifest", `{"revision": "8", "roots": [""]}`)),
		"a module added":          pack(t, with("/more.rego", "package more")),
		"data added":              pack(t, with("/more/data.json", `{}`)),
		"a module missing":        pack(t, without("/shop.rego")),
		"the manifest missing":    pack(t, without("/.manifest")),
		"the signature missing":   pack(t, without("/.signatures.json")),
		"the signature elsewhere": pack(t, map[string]string{"/shop.rego": module, "/sub/.signatures.json": signed["/.signatures.json"]}),
		"no JWT":                  pack(t, with("/.signatures.json", `{"signatures": ["x"]}`)),
		"no signatures":           pack(t, with("/.signatures.json", `{"signatures": []}`)),
		"two signatures":          pack(t, with("/.signatures.json", strings.Replace(signed["/.signatures.json"], "[", `["a.b.c",`, 1))),
		"another verifier":        pack(t, with("/.signatures.json", strings.Replace(signed["/.signatures.json"], "_default", "mine", 1))),
		"no JSON":                 pack(t, with("/.signatures.json", `{`)),
		"alg none": pack(t, token(func(_, payload, _ string) string {
			return b64([]byte(`{"alg":"none"}`)) + "." + payload + "."
		})),
		"alg none, signed before": pack(t, token(func(_, payload, signature string) string {
			return b64([]byte(`{"alg":"none","kid":"key"}`)) + "." + payload + "." + signature
		})),
		"HMAC with the public key": pack(t, token(func(_, payload, signature string) string {
			return b64([]byte(`{"alg":"HS256"}`)) + "." + payload + "." + signature
		})),
		"no signature":      pack(t, token(func(h, p, _ string) string { return h + "." + p + "." })),
		"signature cut":     pack(t, token(func(h, p, s string) string { return h + "." + p + "." + s[:len(s)-2] })),
		"signature flipped": pack(t, token(func(h, p, s string) string { return h + "." + p + "." + flip(s) })),
		"payload flipped":   pack(t, token(func(h, p, s string) string { return h + "." + flip(p) + "." + s })),
		"changes alone":     pack(t, map[string]string{"/patch.json": `{"data": []}`, "/.manifest": `{"revision": "8"}`}),
	} {
		if b, err := bundle.Open(data, bundle.Options{Keys: bundle.Keys{s.key}}); err == nil {
			t.Errorf("%s: opened, version %v", name, b.Version)
		}
	}
	if _, err := bundle.Open(good.make(t), bundle.Options{}); !errors.Is(err, bundle.ErrSignature) {
		t.Errorf("signed, but no key: %v", err)
	}
	scoped := parts{signer: &s, claims: map[string]any{"scope": "write", "iat": 1795341600}}.make(t)
	b, err := bundle.Open(scoped, bundle.Options{Keys: bundle.Keys{s.key}, Scope: "write"})
	if err != nil || b.Version.IssuedAt != 1795341600 || b.Source.Revision != "2026-11-22T10:00:00Z" {
		t.Errorf("with its scope: %+v, %v", b, err)
	}
}

// Each bit of a bundle counts, or nothing of it does.
func TestOpenBitFlips(t *testing.T) {
	t.Parallel()
	s := ecdsaSigner(t)
	data := parts{revision: "7", answer: 42, signer: &s}.make(t)
	options := bundle.Options{Keys: bundle.Keys{s.key}}
	for i := 0; i < 8*len(data); i += 7 {
		flipped := bytes.Clone(data)
		flipped[i/8] ^= 1 << (i % 8)
		b, err := bundle.Open(flipped, options)
		if err == nil && (b.Version.Revision != "7" || answer(t, b.Source) != json.Number("42")) {
			t.Fatalf("bit %d: another bundle is opened", i)
		}
	}
}

func flip(s string) string {
	c := byte('A')
	if s[4] == c {
		c = 'B'
	}
	return s[:4] + string(c) + s[5:]
}

// R08: what no bundle is like.
func TestOpenRefusesArchives(t *testing.T) {
	t.Parallel()
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg, Size: 2} }
	for name, headers := range map[string][]tar.Header{
		"parent":             {file("../evil.rego")},
		"parent inside":      {file("a/../../evil.json")},
		"parent, absolute":   {file("/../evil.json")},
		"dot inside":         {file("a/./b.json")},
		"two slashes":        {file("a//b.json")},
		"backslash":          {file(`a\b.json`)},
		"twice":              {file("a.json"), file("/a.json")},
		"twice, another way": {file("a.json"), file("./a.json")},
		"symlink":            {{Name: "a.json", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}},
		"hard link":          {file("a.json"), {Name: "b.json", Typeflag: tar.TypeLink, Linkname: "a.json"}},
		"device":             {{Name: "a.json", Typeflag: tar.TypeChar}},
		"pipe":               {{Name: "a.json", Typeflag: tar.TypeFifo}},
	} {
		_, err := bundle.Open(tarball(t, headers...), bundle.Options{})
		if err == nil || !strings.Contains(err.Error(), "in it") {
			t.Errorf("%s: %v", name, err)
		}
	}
	many := make([]tar.Header, 10_001)
	for i := range many {
		many[i] = file(fmt.Sprintf("%d.txt", i))
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":           {nil, "not a gzipped tarball"},
		"no gzip":           {[]byte("package shop"), "not a gzipped tarball"},
		"no tarball":        {gzipped(t, strings.NewReader(strings.Repeat("x", 2000))), "not a gzipped tarball"},
		"cut":               {parts{}.make(t)[:100], "not a gzipped tarball"},
		"packed too large":  {make([]byte, 16<<20+1), "larger than 16 MiB"},
		"1 GiB of zeros":    {zeros(t, 1<<30), "larger than 64 MiB when unpacked"},
		"says 1 TiB":        {huge(t), "larger than 64 MiB when unpacked"},
		"many files":        {tarball(t, many...), "more than 10000 files"},
		"WebAssembly":       {pack(t, map[string]string{"/policy.wasm": "x"}), "WebAssembly"},
		"data out of roots": {pack(t, map[string]string{"/.manifest": `{"roots": ["a"]}`, "/b/data.json": "{}"}), "roots"},
		"bad data":          {pack(t, map[string]string{"/data.json": `{`}), "data.json"},
	} {
		if _, err := bundle.Open(c.data, bundle.Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := bundle.Open(pack(t, map[string]string{"/a/shop.rego": "package shop\n\nallow if }"}), bundle.Options{})
	if faults, ok := errors.AsType[mesh.Faults](err); !ok || !strings.HasPrefix(faults[0].Error(), "/a/shop.rego:3:10: ") {
		t.Errorf("a fault: %v", err)
	}
}

// Modules are of the version that the manifest says, or else of ours.
func TestRegoVersions(t *testing.T) {
	t.Parallel()
	const old = "package shop\nallow = 1 { true }"
	for manifest, version := range map[string]ast.RegoVersion{
		`{"rego_version": 0}`: ast.RegoUndefined, `{"file_rego_versions": {"/shop.rego": 0}, "rego_version": 1}`: ast.RegoV1, `{}`: ast.RegoV0,
	} {
		b, err := bundle.Open(pack(t, map[string]string{"/.manifest": manifest, "/shop.rego": old}), bundle.Options{RegoVersion: version})
		if err != nil || answer(t, b.Source) != json.Number("1") {
			t.Errorf("%s: %v", manifest, err)
		}
	}
	if _, err := bundle.Open(pack(t, map[string]string{"/shop.rego": old}), bundle.Options{}); err == nil {
		t.Error("v0 is read as v1")
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	v := func(revision string, iat int64) bundle.Version {
		return bundle.Version{Revision: revision, IssuedAt: iat}
	}
	for _, c := range []struct {
		a, b bundle.Version
		want int
		no   bool
	}{
		{a: v("9", 0), b: v("10", 0), want: -1},
		{a: v("10", 0), b: v("10", 0)},
		{a: v("v1.10.0", 0), b: v("v1.9.3", 0), want: 1},
		{a: v("1.2", 0), b: v("1.2.1", 0), want: -1},
		{a: v("007", 0), b: v("7", 0)},
		{a: v("2026-11-22T10:00:00Z", 0), b: v("2026-11-22T11:00:00+02:00", 0), want: 1},
		{a: v("abc", 1), b: v("def", 2), want: -1},
		{a: v("2", 1), b: v("1", 9), want: 1},
		{a: v("1", 1), b: v("def", 2), want: -1},
		{a: v("abc", 0), b: v("abc", 0), no: true},
		{a: v("1", 0), b: v("2026-11-22T10:00:00Z", 0), no: true},
		{a: v("", 0), b: v("", 5), no: true},
		{a: v("9999999999999999999", 0), b: v("1", 0), no: true},
		{a: v("1.x", 0), b: v("1.x", 0), no: true},
	} {
		got, err := c.a.Compare(c.b)
		back, errBack := c.b.Compare(c.a)
		if got != c.want || back != -c.want || (err != nil) != c.no || (errBack != nil) != c.no {
			t.Errorf("%v and %v: %d, %v and %d, %v", c.a, c.b, got, err, back, errBack)
		}
	}
}

func TestReadKeys(t *testing.T) {
	t.Parallel()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small := rsa.PublicKey{N: private.X, E: 65537} // any number of 256 bits
	good := publicPEM(t, private.Public())
	s := ecdsaSigner(t)
	for name, text := range map[string][]byte{
		"nothing": nil, "a private key": []byte(s.private), "two keys": append(bytes.Clone(good), good...), "garbage": []byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
		"a weak curve": publicPEM(t, weak.Public()), "a small key": publicPEM(t, &small), "a shared secret": []byte("secret"),
	} {
		if _, err := bundle.ParseKey("k", text); err == nil {
			t.Errorf("%s is a key", name)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "a.pem")
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if keys, err := bundle.ReadKeys([]string{path}); err != nil || len(keys) != 1 || keys[0].ID != path {
		t.Errorf("%v, %v", keys, err)
	}
	if _, err := bundle.ReadKeys([]string{path, filepath.Join(dir, "absent")}); err == nil {
		t.Error("a key that is not there")
	}
}

// tarball packs headers, each with two bytes where it has content.
func tarball(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, h := range headers {
		h.Mode = 0o600
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("{}")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func pack(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func unpack(t testing.TB, data []byte) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(content)
	}
}

func gzipped(t testing.TB, r io.Reader) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(z, r); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// zeros is a file of that size, packed small.
func zeros(t testing.TB, size int64) []byte {
	t.Helper()
	r, w := io.Pipe()
	go func() {
		a := tar.NewWriter(w)
		_ = a.WriteHeader(&tar.Header{Name: "data.json", Typeflag: tar.TypeReg, Size: size})
		_, err := io.CopyN(a, zeroReader{}, size)
		_ = w.CloseWithError(errors.Join(err, a.Close()))
	}()
	return gzipped(t, r)
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// huge says that it holds a file of 1 TiB, and goes on for some time.
func huge(t testing.TB) []byte {
	t.Helper()
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&tar.Header{Name: "data.json", Typeflag: tar.TypeReg, Size: 1 << 40, Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	return gzipped(t, io.MultiReader(&head, io.LimitReader(zeroReader{}, 100<<20)))
}
