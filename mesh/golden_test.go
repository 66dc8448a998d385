package mesh_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/chancery-mesh/chancery/mesh"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestCompileGood(t *testing.T) {
	t.Parallel()
	eachArchive(t, "testdata/good", "mesh.json", func(t *testing.T, documents mesh.Documents, dir string) string {
		t.Helper()
		compiled, err := documents.Compile(options)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.MarshalIndent(compiled, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(text), dir+string(filepath.Separator), "") + "\n"
	})
}

// Test documents stand beside those of the mesh, and are told by themselves.
func TestCompileTests(t *testing.T) {
	t.Parallel()
	eachArchive(t, "testdata/tests", "result", func(t *testing.T, documents mesh.Documents, dir string) string {
		t.Helper()
		compiled, err := documents.Compile(mesh.Options{})
		if err != nil {
			t.Fatal(err)
		}
		read, err := mesh.ReadTests(dir)
		if err != nil {
			t.Fatal(err)
		}
		tests, err := read.CompileTests(compiled, options)
		if err != nil {
			return strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), "") + "\n"
		}
		text, err := json.MarshalIndent(tests, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(text), dir+string(filepath.Separator), "") + "\n"
	})
}

func TestCompileBroken(t *testing.T) {
	t.Parallel()
	eachArchive(t, "testdata/broken", "faults", func(t *testing.T, documents mesh.Documents, dir string) string {
		t.Helper()
		compiled, err := documents.Compile(options)
		if faults, ok := errors.AsType[mesh.Faults](err); !ok || len(faults) == 0 || compiled != nil {
			t.Fatalf("compiled to %v, %v", compiled, err)
		}
		text := strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), "")
		return strings.ReplaceAll(text, dir, "DIR") + "\n"
	})
}

// eachArchive reads the documents in each archive and compares what result
// makes of them with its last file.
func eachArchive(t *testing.T, dir, golden string, result func(*testing.T, mesh.Documents, string) string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no archives in %s: %v", dir, err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			dir, want, inputs := t.TempDir(), "", []txtar.File(nil)
			for _, file := range archive.Files {
				if file.Name == golden {
					want = string(file.Data)
					continue
				}
				inputs = append(inputs, file)
				write(t, filepath.Join(dir, file.Name), string(file.Data))
			}
			documents, err := mesh.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			got := result(t, documents, dir)
			if *update {
				archive.Files = append(inputs, txtar.File{Name: golden, Data: []byte(got)})
				write(t, name, string(txtar.Format(archive)))
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got), or run the test with -update:\n%s", diff)
			}
		})
	}
}

// mindBad faults each line that has BAD in it, where it has it.
var options = mesh.Options{
	CheckExpression: mindBad, CheckBinding: mindBad, CheckPassword: mindBadText, CheckSubject: mindBadText, CheckRego: mindBadRego,
}

func mindBadRego(use mesh.RegoUse) (faults mesh.Faults, queries []error) {
	for _, m := range use.Modules {
		for _, f := range mindBad(mesh.Expression{Source: m.Text}) {
			faults = append(faults, mesh.Fault{Position: mesh.Position{File: m.File, Line: f.Line, Column: f.Column}, Message: f.Message})
		}
	}
	for name, data := range use.Data {
		if err := mindBadText(string(data)); err != nil {
			faults = append(faults, mesh.Fault{Message: name + " " + err.Error()})
		}
	}
	for _, query := range use.Queries {
		queries = append(queries, mindBadText(query))
	}
	return faults, queries
}

func mindBadText(text string) error {
	if strings.Contains(text, "BAD") {
		return errors.New("is BAD")
	}
	return nil
}

func mindBad(e mesh.Expression) []mesh.ExpressionFault {
	var faults []mesh.ExpressionFault
	for i, line := range strings.Split(e.Source, "\n") {
		if column := strings.Index(line, "BAD"); column >= 0 {
			faults = append(faults, mesh.ExpressionFault{Line: i + 1, Column: column + 1, Message: "is BAD"})
		}
	}
	return faults
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
