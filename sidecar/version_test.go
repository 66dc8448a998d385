package sidecar_test

import (
	"testing"

	"github.com/chancery-mesh/chancery/sidecar"
)

func TestCheckEnvoyVersion(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text string
		ok   bool
	}{
		{"1.36.12", false},
		{"1.36.13", true},
		{"1.37.10", false},
		{"1.37.11", true},
		{"1.38.7", false},
		{"1.38.8", true},
		{"1.39.5", false},
		{"1.39.6", true},
		{"1.39.6-dev", false},
		{"1.39.7-dev", true},
		{"1.40.0", true},
		{"1.40.0-dev", false},
		{"1.40.3", true},
		{"1.41.0-dev", true},
		{"2.0.0", true},
		{"1.35.99", false},
		{"0.40.0", false},
		{"", false},
		{"1.40", false},
		{"99999999999999999999.1.1", false},
		{"\nenvoy  version: 8a3c5f4bd5c1e3a7/1.40.0/Clean/RELEASE/BoringSSL\n", true},
		{"\nenvoy  version: 8a3c5f4bd5c1e3a7/1.39.3/Modified/RELEASE/BoringSSL\n", false},
	} {
		t.Run(test.text, func(t *testing.T) {
			t.Parallel()
			if err := sidecar.CheckEnvoyVersion(test.text); (err == nil) != test.ok {
				t.Errorf("CheckEnvoyVersion(%q) = %v, want ok %v", test.text, err, test.ok)
			}
		})
	}
}
