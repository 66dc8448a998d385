package rego

import (
	"maps"
	"slices"
)

// Refused returns the builtin functions that no module may call, sorted.
func Refused() []string { return slices.Sorted(maps.Keys(refused)) }
