package controlplane_test

import (
	"testing"

	"github.com/chancery-mesh/chancery/controlplane"
)

func TestMentions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text, name string
		want       bool
	}{
		{`Error adding/updating cluster(s) orders: no`, "orders", true},
		{`Error adding/updating cluster(s) orders~create-order: no, stock: no`, "orders", true},
		{`Error adding/updating cluster(s) orders~create-order: no, stock: no`, "orders~create-order", true},
		{`route "orders/list"`, "orders", true},
		{`orders`, "orders", true},
		{`orders-archive: no`, "orders", false},
		{`reorders: no`, "orders", false},
		{`reorders: no, orders: no`, "orders", true},
		{`anything`, "", false},
		{``, "orders", false},
	}
	for _, tt := range tests {
		if got := controlplane.Mentions(tt.text, tt.name); got != tt.want {
			t.Errorf("Mentions(%q, %q) = %v", tt.text, tt.name, got)
		}
	}
}
