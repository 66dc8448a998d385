// Package scripts_test runs the scripts that find or make tools. The tools
// themselves are pretended by small scripts: nothing is downloaded or built.
package scripts_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestScripts(t *testing.T) {
	t.Parallel()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("SCRIPTS", here)
			env.Setenv("CHANCERY_CACHE", filepath.Join(env.WorkDir, "cache"))
			env.Setenv("PATH", filepath.Join(env.WorkDir, "bin")+":/usr/bin:/bin")
			return nil
		},
	})
}
