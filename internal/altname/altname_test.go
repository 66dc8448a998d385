package altname_test

import (
	"testing"

	"github.com/chancery-mesh/chancery/internal/altname"
)

func TestTypeOf(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]altname.Type{
		"spiffe://partner.example/till": altname.URI,
		"https://till@partner.example/": altname.URI,
		"urn:partner:till":              altname.URI,
		"mailto:till@partner.example":   altname.URI,
		"a+b.c-d:":                      altname.URI,
		"till@partner.example":          altname.Email,
		"1:till@partner.example":        altname.Email,
		"till.partner.example":          altname.DNS,
		"//till.partner.example":        altname.DNS,
		":":                             altname.DNS,
		"":                              altname.DNS,
	} {
		if got := altname.TypeOf(name); got != want {
			t.Errorf("%q is of type %d, want %d", name, got, want)
		}
	}
}
