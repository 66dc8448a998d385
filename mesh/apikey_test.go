package mesh_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/mesh"
)

// What is written reads as it was meant, whatever it looks like.
func TestAPIKeyYAML(t *testing.T) {
	t.Parallel()
	hash := "sha256:" + strings.Repeat("0a", 32)
	for _, want := range []*mesh.APIKey{
		{ID: "abcdefghij", Client: "batch", Owner: "alice", Hash: hash},
		{ID: "0123456789", Client: "2027", Owner: "yes", Hash: hash, Tenant: "null", Scopes: []string{"010", "a:b", "true"}},
		{ID: "12e4567890", Client: "~", Owner: "a: b # c", Hash: hash, Tenant: "- x", Scopes: []string{"{}", "*a", "[", "#", "~"}, Revoked: true},
		{ID: "0x12345678", Client: "1e3", Owner: "é 2027-01-31", Hash: hash, Expires: time.Date(2027, 1, 31, 12, 30, 5, 0, time.UTC)},
	} {
		text, err := want.YAML()
		if err != nil {
			t.Fatal(err)
		}
		quoted := "kind: Mesh\nname: shop\ntrustDomain: shop.example\n---\nkind: Client\nname: \"" + want.Client + "\"\nowner: x\n---\n"
		m, err := mesh.Parse("a.yaml", append([]byte(quoted), text...)).Compile(mesh.Options{})
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		document := mesh.Parse("a.yaml", text).Get(mesh.DocumentID{Kind: mesh.KindAPIKey, Name: want.ID})
		if diff := cmp.Diff(want, document.APIKey()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]*mesh.APIKey{want}, m.APIKeys); diff != "" {
			t.Errorf("%s\n%s", diff, text)
		}
	}
}
