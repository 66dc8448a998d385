package rig

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Documents is the directory of documents that the control plane reads.
type Documents struct{ Dir string }

// writeDocuments copies documents, with the rig's own addresses in them.
func writeDocuments(dir string, from fs.FS, addresses *strings.Replacer) (*Documents, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	d := &Documents{Dir: dir}
	names, err := fs.Glob(from, "*.yaml")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		data, err := fs.ReadFile(from, name)
		if err != nil {
			return nil, err
		}
		if err := replaceFile(filepath.Join(dir, name), addresses.Replace(string(data))); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// Edit replaces old, which must stand in the file, by text, and returns what
// undoes it.
func (d *Documents) Edit(file, old, text string) (undo func() error, err error) {
	path := filepath.Join(d.Dir, file)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	before := string(data)
	if !strings.Contains(before, old) {
		return nil, fmt.Errorf("edit %s: %q does not stand in it", file, old)
	}
	undo = func() error { return replaceFile(path, before) }
	return undo, replaceFile(path, strings.Replace(before, old, text, 1))
}

// replaceFile writes a file so that nobody reads half of it.
func replaceFile(path, content string) error {
	fresh := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(fresh, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}
