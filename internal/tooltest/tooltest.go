// Package tooltest finds the programs that tests run for real.
package tooltest

import (
	"cmp"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Path returns where a program is: what the environment variable NAME_PATH
// says (in upper case, "-" written "_"), else what is on PATH. A test that does not find it is skipped, with a
// hint how to get it; or it fails, where CHANCERY_REQUIRE names the program
// ("envoy,consul"), because whoever runs it said that it is there.
func Path(t testing.TB, name, hint string) string {
	t.Helper()
	variable := strings.ReplaceAll(strings.ToUpper(name), "-", "_") + "_PATH"
	path, err := exec.LookPath(cmp.Or(os.Getenv(variable), name))
	if err == nil {
		return path
	}
	absent := t.Skipf
	if slices.Contains(strings.Split(os.Getenv("CHANCERY_REQUIRE"), ","), name) {
		absent = t.Fatalf
	}
	absent("needs %s: %s, or set %s (%v)", name, hint, variable, err)
	return ""
}
