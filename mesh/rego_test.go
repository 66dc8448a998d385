package mesh_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/mesh"
)

const regoDocument = "kind: Rego\nname: shop\nmodules: [shop.rego]\n"

var shopPolicy = mesh.DocumentID{Kind: mesh.KindRego, Name: "shop"}

func readRego(t *testing.T, module string) *mesh.Document {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "mesh.yaml"), regoDocument)
	write(t, filepath.Join(dir, "shop.rego"), module)
	documents, err := mesh.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return documents.Get(shopPolicy)
}

// A document with its modules is the same wherever it goes.
func TestRegoDocumentGoesWithItsModules(t *testing.T) {
	t.Parallel()
	hashes := map[string]string{}
	for name, module := range map[string]string{
		"plain": "package shop\n\nallow if true\n", "another": "package shop\n\nallow if false\n", "no end of line": "package shop", "tabs": "package shop\nallow if {\n\ttrue\n}\n",
		"spaces at the end": "package shop  \n\n\n", "looks like YAML": "---\nkind: Mesh\n...\n", "quotes": `package shop` + "\n" + `x := "a'\"b: #` + "`\"", "empty": "",
		"leading space": "  package shop\n", "carriage returns": "package shop\r\nallow if true\r\n", "Unicode": "package shop # grün \u2028 \U0001F600\n",
	} {
		d := readRego(t, module)
		text, err := d.YAML()
		if err != nil {
			t.Fatal(err)
		}
		again := mesh.Parse("saved.yaml", text).Get(shopPolicy)
		if again == nil || again.Hash != d.Hash {
			t.Errorf("%s: is another one after it was written:\n%s", name, text)
		}
		if other, twice := hashes[d.Hash]; twice {
			t.Errorf("%s and %s are the same document", name, other)
		}
		hashes[d.Hash] = name
	}
}

func TestRegoModulesAreText(t *testing.T) {
	t.Parallel()
	for name, module := range map[string]string{"no UTF-8": "package shop\xff", "a zero": "package shop\x00"} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "mesh.yaml"), regoDocument)
		write(t, filepath.Join(dir, "shop.rego"), module)
		documents, err := mesh.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := documents.Compile(mesh.Options{}); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

// A module that changes is a document that changes.
func TestWatchModules(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "mesh.yaml"), "kind: Mesh\nname: shop\ntrustDomain: shop.example\n---\n"+regoDocument)
	write(t, filepath.Join(dir, "shop.rego"), "package one")
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan string, 10)
	done := make(chan error)
	go func() {
		done <- mesh.Watch(ctx, mesh.WatchConfig{Dir: dir}, func(_ mesh.Documents, m *mesh.Mesh, err error) {
			if err != nil {
				told <- err.Error()
				return
			}
			told <- m.Rego[0].Modules[0].Text
		})
	}()
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-told:
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("not told of %q", want)
		}
	}
	expect("package one")
	write(t, filepath.Join(dir, "shop.rego"), "package two")
	expect("package two")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
