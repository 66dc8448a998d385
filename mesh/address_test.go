package mesh_test

import (
	"net/netip"
	"testing"

	"github.com/chancery-mesh/chancery/mesh"
)

// Row K07 of the attack catalogue, the addresses.
func TestCheckAddress(t *testing.T) {
	t.Parallel()
	const public, private, never = "public", "private", "never"
	for address, want := range map[string]string{
		"93.184.216.34":          public,
		"2606:2800:220:1::1":     public,
		"64:ff9b::5db8:d822":     public, // by NAT64
		"127.0.0.1":              private,
		"127.9.9.9":              private,
		"::1":                    private,
		"::ffff:127.0.0.1":       private,
		"10.1.2.3":               private,
		"172.31.255.255":         private,
		"192.168.1.1":            private,
		"100.64.0.1":             private,
		"198.18.0.1":             private,
		"fd12:3456::1":           private,
		"64:ff9b::a01:203":       private,
		"169.254.169.254":        never,
		"::ffff:169.254.169.254": never,
		"64:ff9b::a9fe:a9fe":     never,
		"::a9fe:a9fe":            never,
		"2002:a9fe:a9fe::":       never,
		"2001::1":                never,
		"64:ff9b:1::a9fe:a9fe":   never,
		"fe80::1":                never,
		"fe80::1%eth0":           never,
		"100.100.100.200":        never,
		"168.63.129.16":          never,
		"fd00:ec2::254":          never,
		"fd20:ce::254":           never,
		"0.0.0.0":                never,
		"0.1.2.3":                never,
		"::":                     never,
		"224.0.0.1":              never,
		"ff02::1":                never,
		"255.255.255.255":        never,
		"240.0.0.1":              never,
	} {
		a := netip.MustParseAddr(address)
		got := public
		if mesh.CheckAddress(a, true) != nil {
			got = never
		} else if mesh.CheckAddress(a, false) != nil {
			got = private
		}
		if got != want {
			t.Errorf("%s is %s, want %s", address, got, want)
		}
	}
	if mesh.CheckAddress(netip.Addr{}, true) == nil {
		t.Error("no address is one")
	}
}
