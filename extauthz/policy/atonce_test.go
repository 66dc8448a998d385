package policy_test

import (
	"sync"
	"testing"

	"github.com/chancery-mesh/chancery/extauthz/policy"
)

// Compilations at once do not meet in what cel-go makes when it first meets a name
// that is not declared. This must be the first test that does, so it is in the first
// file.
func TestCompileAtOnce(t *testing.T) { //nolint:paralleltest // it comes before all that are
	var all sync.WaitGroup
	all.Go(func() {
		if _, faults := policy.Compile("usr.id == 'alice'"); len(faults) == 0 {
			t.Error("a misspelt name compiles")
		}
	})
	all.Go(func() {
		if _, faults := policy.Compile("user.groups.exists(g, g == 'sales')"); len(faults) > 0 {
			t.Error(faults)
		}
	})
	all.Wait()
}
