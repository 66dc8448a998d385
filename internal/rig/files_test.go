package rig

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestDocuments(t *testing.T) {
	t.Parallel()
	from := fstest.MapFS{
		"gateway.yaml": {Data: []byte("listen: 127.0.0.1:8080\nissuer: http://127.0.0.1:9000\n")},
		"code.go":      {Data: []byte("package x")},
	}
	d, err := writeDocuments(filepath.Join(t.TempDir(), "d"), from,
		strings.NewReplacer("127.0.0.1:8080", "127.0.0.1:1", "127.0.0.1:9000", "127.0.0.1:2"))
	if err != nil {
		t.Fatal(err)
	}
	want := "listen: 127.0.0.1:1\nissuer: http://127.0.0.1:2\n"
	content(t, d, want)
	undo, err := d.Edit("gateway.yaml", "listen:", "lissen:")
	if err != nil {
		t.Fatal(err)
	}
	content(t, d, strings.Replace(want, "listen:", "lissen:", 1))
	if err := undo(); err != nil {
		t.Fatal(err)
	}
	content(t, d, want)
	if _, err := d.Edit("gateway.yaml", "nowhere", ""); err == nil {
		t.Error("an edit of nothing is no error")
	}
}

// content compares all that is in the directory.
func content(t *testing.T, d *Documents, want string) {
	t.Helper()
	files, err := os.ReadDir(d.Dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("%v: %v", files, err)
	}
	data, err := os.ReadFile(filepath.Join(d.Dir, "gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(data)); diff != "" {
		t.Error(diff)
	}
}

func TestFileRegistry(t *testing.T) {
	t.Parallel()
	f := &fileRegistry{path: filepath.Join(t.TempDir(), "services.yaml")}
	one := Entry{Service: "orders", ID: "orders-1", Address: netip.MustParseAddrPort("127.0.0.1:1"), Mesh: netip.MustParseAddrPort("127.0.0.1:2")}
	moved := one
	moved.Mesh = netip.MustParseAddrPort("127.0.0.1:3")
	for _, step := range []struct {
		do   func() error
		want string
	}{
		{func() error { return f.Put(t.Context(), one) }, `{"services":{"orders":[{"id":"orders-1","address":"127.0.0.1:1","mesh":"127.0.0.1:2"}]}}`},
		{func() error { return f.Put(t.Context(), moved) }, `{"services":{"orders":[{"id":"orders-1","address":"127.0.0.1:1","mesh":"127.0.0.1:3"}]}}`},
		{func() error { return f.Remove(t.Context(), one) }, `{"services":{}}`},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(f.path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, string(data)); diff != "" {
			t.Error(diff)
		}
	}
}
