package identity_test

import (
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/identity"
)

func TestParseSPIFFE(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		in   string
		want identity.ID // zero: refused
	}{
		"service":                {"spiffe://shop.example/service/orders", identity.ID{Role: identity.RoleService, Name: "orders"}},
		"gateway":                {"spiffe://shop.example/gateway/public", identity.ID{Role: identity.RoleGateway, Name: "public"}},
		"no path":                {in: "spiffe://shop.example"},
		"empty path":             {in: "spiffe://shop.example/"},
		"no name":                {in: "spiffe://shop.example/service/"},
		"role alone":             {in: "spiffe://shop.example/service"},
		"unknown role":           {in: "spiffe://shop.example/admin/orders"},
		"longer path":            {in: "spiffe://shop.example/service/orders/x"},
		"trailing slash":         {in: "spiffe://shop.example/service/orders/"},
		"double slash":           {in: "spiffe://shop.example//service/orders"},
		"dot segment":            {in: "spiffe://shop.example/service/../orders"},
		"encoded slash":          {in: "spiffe://shop.example/service%2forders"},
		"encoded name":           {in: "spiffe://shop.example/service/%6frders"},
		"upper-case name":        {in: "spiffe://shop.example/service/Orders"},
		"query":                  {in: "spiffe://shop.example/service/orders?x"},
		"fragment":               {in: "spiffe://shop.example/service/orders#x"},
		"NUL":                    {in: "spiffe://shop.example/service/orders\x00.evil"},
		"longer trust domain":    {in: "spiffe://shop.example.evil.com/service/orders"},
		"look-alike":             {in: "spiffe://shоp.example/service/orders"},
		"upper-case domain":      {in: "spiffe://SHOP.example/service/orders"},
		"port":                   {in: "spiffe://shop.example:80/service/orders"},
		"user":                   {in: "spiffe://u@shop.example/service/orders"},
		"upper-case scheme":      {in: "SPIFFE://shop.example/service/orders"},
		"other scheme":           {in: "https://shop.example/service/orders"},
		"name of 64 bytes":       {in: "spiffe://shop.example/service/" + strings.Repeat("a", 64)},
		"name that ends in dash": {in: "spiffe://shop.example/service/orders-"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := identity.ParseSPIFFE("shop.example", tt.in)
			if got != tt.want || (err == nil) == tt.want.IsZero() {
				t.Fatalf("ParseSPIFFE(%q) = %v, %v; want %v", tt.in, got, err, tt.want)
			}
			if err == nil && got.SPIFFE("shop.example") != tt.in {
				t.Errorf("written back as %q", got.SPIFFE("shop.example"))
			}
		})
	}
}
