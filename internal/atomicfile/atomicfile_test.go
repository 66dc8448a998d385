package atomicfile_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/chancery-mesh/chancery/internal/atomicfile"
)

func TestWrite(t *testing.T) { testReplaces(t, atomicfile.Write) }

func TestPut(t *testing.T) { testReplaces(t, atomicfile.Put) }

func testReplaces(t *testing.T, write func(string, []byte, fs.FileMode) error) {
	t.Helper()
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	for _, content := range []string{"first", "second"} {
		if err := write(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Fatalf("ReadFile = %q, %v; want %q", got, err, content)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode is %v, want 0600", info.Mode())
	}
	assertOnly(t, dir, "state")
}

func TestWriteLeavesTheOldFileWhenItCannotReplaceIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(path, []byte("x"), 0o600); err == nil {
		t.Error("Write replaced a directory")
	}
	assertOnly(t, dir, "state")
}

// assertOnly fails when anything but name is left in dir.
func assertOnly(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("%s holds %v, want %q alone", dir, entries, name)
	}
}

func TestRename(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "pending"), filepath.Join(dir, "state")
	if err := atomicfile.Rename(from, to); err == nil {
		t.Error("Rename moved nothing")
	}
	if err := atomicfile.Put(from, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Rename(from, to); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(to); err != nil || string(got) != "x" {
		t.Errorf("ReadFile = %q, %v", got, err)
	}
	assertOnly(t, dir, "state")
}
