// Package golden compares what a test makes with what it made when somebody
// last looked. Each case is one txtar file: the parts whose names begin with
// "input" go in, all others are what comes out.
//
//	golden.Run(t, "testdata/*.txtar", func(t *testing.T, input golden.Files) golden.Files {
//		return golden.Files{"clusters.yaml": translate(input["input.yaml"])}
//	})
//
// `go test -update` rewrites the outputs; review the difference like code.
package golden

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite golden files")

// Files are parts of a case by name.
type Files map[string]string

// Run runs a subtest for each file that pattern matches, of which there must be
// one. Outputs that make no longer returns are removed by -update.
func Run(t *testing.T, pattern string, make func(t *testing.T, input Files) Files) {
	t.Helper()
	cases, err := filepath.Glob(pattern)
	if err != nil || len(cases) == 0 {
		t.Fatalf("no golden files match %q (%v)", pattern, err)
	}
	for _, file := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want := split(archive)
			got := make(t, input)
			if *update {
				write(t, file, archive, got)
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s differs (-want +got); -update rewrites it:\n%s", file, diff)
			}
		})
	}
}

func split(archive *txtar.Archive) (input, want Files) {
	input, want = Files{}, Files{}
	for _, part := range archive.Files {
		if isInput(part.Name) {
			input[part.Name] = string(part.Data)
		} else {
			want[part.Name] = string(part.Data)
		}
	}
	return input, want
}

func isInput(name string) bool { return strings.HasPrefix(name, "input") }

func write(t *testing.T, file string, archive *txtar.Archive, got Files) {
	t.Helper()
	archive.Files = slices.DeleteFunc(archive.Files, func(part txtar.File) bool { return !isInput(part.Name) })
	for _, name := range slices.Sorted(maps.Keys(got)) {
		archive.Files = append(archive.Files, txtar.File{Name: name, Data: []byte(got[name])})
	}
	if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
		t.Fatal(err)
	}
}
