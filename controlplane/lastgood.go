package controlplane

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/chancery-mesh/chancery/internal/atomicfile"
	"github.com/chancery-mesh/chancery/mesh"
)

// saveDocuments keeps a copy of the documents in dir, all in one file, if they
// still are docs: their files may have changed meanwhile, and then there will
// be another call.
func saveDocuments(path, dir string, docs mesh.Documents) error {
	var all bytes.Buffer
	for _, pattern := range []string{"*.yaml", "*.yml"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, file := range files {
			if filepath.Base(file)[0] == '.' {
				continue
			}
			data, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("copy documents: %w", err)
			}
			fmt.Fprintf(&all, "---\n# %s\n%s\n", filepath.Base(file), data)
		}
	}
	if mesh.Parse(path, all.Bytes()).Hash() != docs.Hash() {
		return errors.New("copy documents: they have changed meanwhile")
	}
	return atomicfile.Write(path, all.Bytes(), 0o600)
}

// loadDocuments returns what saveDocuments kept.
func loadDocuments(path string) (mesh.Documents, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return mesh.Documents{}, fmt.Errorf("load last good documents: %w", err)
	}
	return mesh.Parse(path, data), nil
}
