package throttle_test

import (
	"net/netip"
	"testing"

	"github.com/chancery-mesh/chancery/internal/throttle"
)

func TestNetwork(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.1":             "192.0.2.1/32",
		"::ffff:192.0.2.1":      "192.0.2.1/32",
		"2001:db8:0:1:2:3:4:5":  "2001:db8:0:1::/64",
		"fe80::1%eth0":          "fe80::/64",
		"2001:db8:0:1::%zone-2": "2001:db8:0:1::/64",
	} {
		if got := throttle.Network(netip.MustParseAddr(address)); got.String() != want {
			t.Errorf("%s is of %v, want %s", address, got, want)
		}
	}
	if got := throttle.Network(netip.Addr{}); got.IsValid() {
		t.Errorf("no address is of %v", got)
	}
}
