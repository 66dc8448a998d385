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

// Run runs a subtest for each case that pattern matches, of which there must be
// one, and compares what transform makes of its input. Outputs that transform
// no longer makes are removed by -update.
func Run(t *testing.T, pattern string, transform func(t *testing.T, input Files) Files) {
	t.Helper()
	each(t, pattern, func(t *testing.T, file string, archive *txtar.Archive) {
		input, want := split(archive)
		got := transform(t, input)
		if *update {
			write(t, file, archive, got)
			return
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s differs (-want +got); -update rewrites it:\n%s", file, diff)
		}
	})
}

// Each runs a subtest with the input of each case, for what is checked besides.
func Each(t *testing.T, pattern string, test func(t *testing.T, input Files)) {
	t.Helper()
	each(t, pattern, func(t *testing.T, _ string, archive *txtar.Archive) {
		input, _ := split(archive)
		test(t, input)
	})
}

func each(t *testing.T, pattern string, test func(t *testing.T, file string, archive *txtar.Archive)) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files match %q (%v)", pattern, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			test(t, file, archive)
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
