package mesh_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/mesh"
)

var referenceKey = regexp.MustCompile("(?m)^\\| `([^`]*)` \\| ([^|]*) \\|")

// What is written as one word, such as a network, is described as one.
func TestReferenceNamesKeysThatCanBeWritten(t *testing.T) {
	t.Parallel()
	words := map[string]string{}
	for _, row := range referenceKey.FindAllStringSubmatch(string(mesh.Reference()), -1) {
		key := row[1]
		words[key] = row[2]
		if slices.Contains(strings.Split(strings.ReplaceAll(key, "[]", ""), "."), "") {
			t.Errorf("key %q has an empty part", key)
		}
	}
	if got := words["plaintext.from"]; got != "list of networks" {
		t.Errorf("plaintext.from is a %q", got)
	}
}
