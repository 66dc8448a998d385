package translate_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
)

// The examples of the documentation are right: each, beside the first, becomes
// policies that decision points take.
func TestDocumentationExamples(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/authentication.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)\n```yaml\n(.*?)\n```\n").FindAllSubmatchIndex(text, -1)
	if len(blocks) < 14 || strings.Count(string(text), "```")%2 != 0 {
		t.Fatalf("%d examples", len(blocks))
	}
	base := mesh.Parse("authentication.md", text[blocks[0][2]:blocks[0][3]])
	for _, block := range blocks {
		heading := text[:block[0]]
		heading = heading[strings.LastIndex(string(heading), "\n#")+1:]
		name, _, _ := strings.Cut(string(heading), "\n")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			example := text[block[2]:block[3]]
			documents, all := base, mesh.Parse("authentication.md", example).All()
			for _, document := range all {
				documents = documents.With(document)
			}
			if n := strings.Count("\n"+string(example), "\nkind: "); len(all) != n {
				t.Errorf("%d documents of %d can be read", len(all), n)
			}
			m, err := documents.Compile(extauthz.DocumentOptions())
			if err != nil {
				t.Fatalf("%v\n%s", err, example)
			}
			takePolicies(t, m)
		})
	}
}

// takePolicies has decision points take all that is made of m.
func takePolicies(t *testing.T, m *mesh.Mesh) {
	t.Helper()
	var keys extauthz.Keys
	for _, p := range m.Providers {
		keys.Providers = append(keys.Providers, translate.Provider(p))
	}
	for _, a := range translate.Accounts(m) {
		keys.Accounts = append(keys.Accounts, a)
	}
	var policies []*chancerypb.Policy
	for _, g := range m.Gateways {
		policies = append(policies, translate.Gateway(m, g))
	}
	for _, s := range m.Services {
		policies = append(policies, translate.Service(m, s))
	}
	for _, p := range policies {
		rules, err := extauthz.Compile(p)
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := rules.With(keys); err != nil {
			t.Error(err)
		}
	}
}
