package doctor_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/chancery-mesh/chancery/doctor"
)

func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("svid.pem", 0o600)
	write("passport-keys.json", 0o644)
	if err := os.Mkdir(filepath.Join(dir, "service"), 0o711); err != nil {
		t.Fatal(err)
	}
	expect(t, doctor.Files(dir))

	open := write("key", 0o640)
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/etc/passwd", link); err != nil {
		t.Fatal(err)
	}
	expect(t, doctor.Files(dir), finding{doctor.Problem, open, "others can"}, finding{doctor.Problem, link, "symbolic link"})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	expect(t, doctor.Files(dir), finding{doctor.Problem, dir, "others can"},
		finding{doctor.Problem, open, "others can"}, finding{doctor.Problem, link, "symbolic link"})
	gone := filepath.Join(dir, "gone")
	expect(t, doctor.Files(gone), finding{doctor.Problem, gone, "cannot be looked at"})
}
