package controlplane_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestMetricsOfIdentityAreDocumented finds what operators are not told of.
func TestMetricsOfIdentityAreDocumented(t *testing.T) {
	t.Parallel()
	told, err := os.ReadFile("../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`"(chancery_(?:authorit|certificate|clock|connections|credential|control_plane|introspections|passport|provider|revocations|rotation|svid|trust)\w*)"`)
	found := 0
	for _, dir := range []string{".", "../sidecar", "../extauthz/introspection", "../extauthz/provider"} {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, metric := range name.FindAllStringSubmatch(string(source), -1) {
				found++
				if !regexp.MustCompile("`" + metric[1] + "[`{]").Match(told) {
					t.Errorf("docs/operating.md does not say what %s is", metric[1])
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d metrics found", found)
	}
}
