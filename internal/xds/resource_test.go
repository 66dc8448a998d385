package xds_test

import (
	"testing"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/chancery-mesh/chancery/internal/xds"
)

func TestVersionsComeFromContent(t *testing.T) {
	t.Parallel()
	fields := map[string]any{"a": 1.0, "b": "x", "c": true, "d": []any{"y"}, "e": nil}
	versions := map[string]bool{}
	for range 20 { // maps are walked in another order each time
		m, err := structpb.NewStruct(fields)
		if err != nil {
			t.Fatal(err)
		}
		r, err := xds.New("r", m)
		if err != nil {
			t.Fatal(err)
		}
		versions[r.Version] = true
	}
	if len(versions) != 1 {
		t.Errorf("equal messages have versions %v", versions)
	}
	if a, b := resource(t, "r", "1"), resource(t, "r", "2"); a.Version == b.Version {
		t.Error("different messages have one version")
	}
}

func TestResourceSurvivesTheWire(t *testing.T) {
	t.Parallel()
	sent := resource(t, "r", "content")
	got := xds.FromDelta(sent.Delta())
	if got.Name != sent.Name || got.Version != sent.Version || got.TypeURL != typeURL {
		t.Errorf("received %+v", got)
	}
	var m wrapperspb.StringValue
	if err := got.Decode(&m); err != nil || m.GetValue() != "content" {
		t.Errorf("Decode: %v, %v", m.GetValue(), err)
	}
	if err := got.Decode(&wrapperspb.BoolValue{}); err == nil {
		t.Error("decoded into another type")
	}
}

func TestDigest(t *testing.T) {
	t.Parallel()
	base := map[string]string{"a": "1", "b": "2"}
	same := map[string]string{"b": "2", "a": "1"}
	if xds.DigestOf(base) != xds.DigestOf(same) {
		t.Error("order matters")
	}
	for name, other := range map[string]map[string]string{
		"empty":           {},
		"one less":        {"a": "1"},
		"one more":        {"a": "1", "b": "2", "c": "3"},
		"another version": {"a": "1", "b": "3"},
		"swapped":         {"a": "2", "b": "1"},
		"other split":     {"a\x001": "", "b": "2"},
	} {
		if xds.DigestOf(base) == xds.DigestOf(other) {
			t.Errorf("%s: equal digests", name)
		}
	}
}
