package mesh_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/mesh"
)

const keyHash = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// manyKeys are documents with n API keys of the client.
func manyKeys(n int, client string) mesh.Documents {
	var b strings.Builder
	b.WriteString("kind: Mesh\nname: shop\ntrustDomain: shop.example\n")
	b.WriteString("---\nkind: Client\nname: till\nowner: Till team\n")
	for i := range n {
		fmt.Fprintf(&b, "---\nkind: APIKey\nname: k%09d\nclient: %s\nowner: till-%d\nscopes: [orders.read]\nhash: %s\n", i, client, i, keyHash)
	}
	return mesh.Parse("keys.yaml", []byte(b.String()))
}

// Ten thousand keys are an ordinary number, also when all of them are faulty.
func TestManyKeysCompile(t *testing.T) {
	t.Parallel()
	for client, faulty := range map[string]bool{"till": false, "tyll": true} {
		documents := manyKeys(10_000, client)
		m, err := documents.Compile(mesh.Options{})
		if (err != nil) != faulty || !faulty && len(m.APIKeys) != 10_000 {
			t.Errorf("%s: %v", client, err)
		}
	}
}

// Roles that include each other in many ways are resolved once each.
func TestRolesThatShareMuch(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("kind: Mesh\nname: shop\ntrustDomain: shop.example\n---\nkind: Roles\nname: deep\nroles:\n")
	for layer := range 50 {
		for i := range 10 {
			fmt.Fprintf(&b, "  - {name: r-%d-%d, permissions: [p%d], includes: [", layer, i, layer)
			for j := range 10 {
				if layer < 49 {
					fmt.Fprintf(&b, "r-%d-%d, ", layer+1, j)
				}
			}
			b.WriteString("]}\n")
		}
	}
	m, err := mesh.Parse("roles.yaml", []byte(b.String())).Compile(mesh.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if top := m.Roles[0]; top.Name != "r-0-0" || len(top.Permissions) != 50 {
		t.Errorf("%s has %d permissions", top.Name, len(top.Permissions))
	}
}

// One file cannot have more faults than somebody would read.
func TestFaultsAreBounded(t *testing.T) {
	t.Parallel()
	text := "kind: Data\nname: many\nvalues: {list: [" + strings.Repeat(".nan, ", 150_000) + "]}\n"
	_, err := mesh.Parse("data.yaml", []byte(text)).Compile(mesh.Options{})
	if err == nil || strings.Count(err.Error(), "\n") > 1100 {
		t.Errorf("faults are %.1000v", err)
	}
}

func BenchmarkCompileKeys(b *testing.B) {
	documents := manyKeys(10_000, "till")
	for b.Loop() {
		if _, err := documents.Compile(mesh.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseKeys(b *testing.B) {
	for b.Loop() {
		manyKeys(10_000, "till")
	}
}
