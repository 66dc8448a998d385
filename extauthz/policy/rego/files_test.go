package rego_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/chancery-mesh/chancery/extauthz/policy/rego"
	"github.com/chancery-mesh/chancery/mesh"
)

// write writes files, by their names below a directory, and returns it.
func write(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRead(t *testing.T) {
	t.Parallel()
	dir := write(t, t.TempDir(), map[string]string{
		"shop.rego": "package shop", "shop_test.rego": "nonsense", "lib/deep/lib.rego": "package lib", ".hidden.rego": "nonsense",
		".hidden/x.rego": "nonsense", "README.md": "nonsense", "data.json": `{"a": 1, "o": {"x": 1}}`, "other.yaml": "b: [1]\no:\n  y: 2\n", "lib/data.yml": "c: d",
	})
	source, err := rego.Read(dir, ast.RegoV0)
	if err != nil {
		t.Fatal(err)
	}
	want := []rego.Module{
		{File: filepath.Join(dir, "lib/deep/lib.rego"), Text: "package lib", Version: ast.RegoV0},
		{File: filepath.Join(dir, "shop.rego"), Text: "package shop", Version: ast.RegoV0},
	}
	if diff := cmp.Diff(want, source.Modules); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	data := map[string]any{
		"a": number("1"), "b": []any{number("1")}, "o": map[string]any{"x": number("1"), "y": number("2")}, "lib": map[string]any{"c": "d"},
	}
	if diff := cmp.Diff(data, source.Data); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	one, err := rego.Read(filepath.Join(dir, "shop.rego"), ast.RegoUndefined)
	if err != nil || len(one.Modules) != 1 || one.Revision == source.Revision || len(source.Revision) != 12 {
		t.Errorf("%+v, %v", one, err)
	}
	again, err := rego.Read(dir, ast.RegoV0)
	if err != nil || again.Revision != source.Revision {
		t.Errorf("revision %s, then %s, %v", source.Revision, again.Revision, err)
	}
}

// Kubernetes mounts a directory of symlinks, and swaps the one they lead through.
func TestReadSymlinks(t *testing.T) {
	t.Parallel()
	dir := write(t, t.TempDir(), map[string]string{"..v1/shop.rego": "package shop", "..v1/lib/lib.rego": "package lib"})
	for name, target := range map[string]string{"..data": "..v1", "shop.rego": "..data/shop.rego", "lib": "..data/lib"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	source, err := rego.Read(dir, ast.RegoUndefined)
	if err != nil || len(source.Modules) != 2 {
		t.Fatalf("%+v, %v", source, err)
	}
	if err := os.Symlink(".", filepath.Join(dir, "circle")); err != nil {
		t.Fatal(err)
	}
	if _, err := rego.Read(dir, ast.RegoUndefined); err == nil || !strings.Contains(err.Error(), "circle") {
		t.Errorf("a circle: %v", err)
	}
}

func TestReadFaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no JSON":      {map[string]string{"a.json": `{"a":`}, "a.json: is not JSON"},
		"no YAML":      {map[string]string{"a.yaml": "a: ["}, "a.yaml: is not YAML"},
		"no object":    {map[string]string{"a.json": `[1]`}, "a.json: is not an object"},
		"two the same": {map[string]string{"a.json": `{"x": {"y": 1}}`, "b.json": `{"x": {"y": 1}}`}, "b.json: data.x.y is in another file, too"},
		"in the way":   {map[string]string{"a.json": `{"x": 1}`, "x/b.json": `{"y": 1}`}, "b.json: data.x is in another file, too"},
	} {
		_, err := rego.Read(write(t, t.TempDir(), c.files), ast.RegoUndefined)
		if _, ok := errors.AsType[mesh.Faults](err); !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := write(t, t.TempDir(), map[string]string{"data.json": `{}`})
	for _, path := range []string{filepath.Join(dir, "absent"), filepath.Join(dir, "data.json"), os.DevNull} {
		if _, err := rego.Read(path, ast.RegoUndefined); err == nil {
			t.Errorf("%s is read", path)
		}
	}
	large := filepath.Join(dir, "large.json")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, 1<<30); err != nil {
		t.Fatal(err)
	}
	if _, err := rego.Read(dir, ast.RegoUndefined); err == nil || !strings.Contains(err.Error(), "larger than 64 MiB") {
		t.Errorf("1 GiB: %v", err)
	}
}
