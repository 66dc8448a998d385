package file_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/discovery"
	"github.com/chancery-mesh/chancery/discovery/file"
	"github.com/chancery-mesh/chancery/internal/registrytest"
)

// directory writes a file for each service.
type directory string

func (d directory) Set(t testing.TB, service string, instances ...discovery.Instance) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "services:\n  %s:\n", service)
	for _, i := range instances {
		fmt.Fprintf(&b, "  - {id: %s, address: %q, weight: %d", i.ID, i.Address, i.Weight)
		if i.Mesh.IsValid() {
			fmt.Fprintf(&b, ", mesh: %q", i.Mesh)
		}
		b.WriteString("}\n")
	}
	write(t, filepath.Join(string(d), service+".yaml"), b.String())
}

func TestContract(t *testing.T) {
	t.Parallel()
	registrytest.Test(t, func(t *testing.T) (discovery.Registry, registrytest.Directory) {
		t.Helper()
		dir := t.TempDir()
		r, err := file.New(file.Config{Path: dir})
		if err != nil {
			t.Fatal(err)
		}
		return r, directory(dir)
	})
}
