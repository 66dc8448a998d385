package mesh_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/mesh"
)

func TestGeneratedFilesAreCurrent(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]byte{
		"../schema/chancery.schema.json": mesh.Schema(),
		"../docs/reference/documents.md": mesh.Reference(),
	} {
		if *update {
			write(t, name, string(want))
			continue
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (-want +got), run the test with -update:\n%s", name, diff)
		}
	}
}

func TestSchema(t *testing.T) {
	t.Parallel()
	type schema struct {
		Properties           map[string]schema
		Items                *schema
		Required, Enum       []string
		Default              any
		Minimum, Maximum     int
		AdditionalProperties any
		Defs                 map[string]schema `json:"$defs"`
	}
	var s schema
	if err := json.Unmarshal(mesh.Schema(), &s); err != nil {
		t.Fatal(err)
	}
	service := s.Defs["Service"]
	route := service.Properties["routes"].Items
	if service.AdditionalProperties != false {
		t.Error("a service may have other keys")
	}
	if diff := cmp.Diff([]string{"match", "allow"}, route.Required); diff != "" {
		t.Errorf("required of a route (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"Service"}, service.Properties["kind"].Enum); diff != "" {
		t.Errorf("kind (-want +got):\n%s", diff)
	}
	attempts := route.Properties["retries"].Properties["attempts"]
	if attempts.Default != 1.0 || attempts.Minimum != 1 || attempts.Maximum != 10 {
		t.Errorf("attempts is %+v", attempts)
	}
	on := route.Properties["retries"].Properties["on"]
	if diff := cmp.Diff([]any{"connect-failure", "refused-stream"}, on.Default); diff != "" || len(on.Items.Enum) != 14 {
		t.Errorf("on is %+v", on)
	}
}
