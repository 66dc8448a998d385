package discovery_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/discovery"
)

// Row N01 of the attack catalogue.
func TestValidName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"orders": true, "a": true, "order-items-2": true, strings.Repeat("a", 63): true,
		"": false, "*": false, "..": false, "a/b": false, "a b": false, "Ünï": false, "a.b": false,
		"A": false, "-a": false, "a-": false, "a\n": false, "a%2fb": false, "a?b": false,
		strings.Repeat("a", 64): false, strings.Repeat("a", 255): false,
	} {
		if got := discovery.ValidName(name); got != want {
			t.Errorf("ValidName(%q) = %v, want %v", name, got, want)
		}
	}
}

// Row N03 of the attack catalogue.
func TestNetworksParse(t *testing.T) {
	t.Parallel()
	ten := discovery.Networks{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, c := range []struct {
		name     string
		networks discovery.Networks
		host     string
		port     int
		want     string
		err      string
	}{
		{"IPv4", nil, "10.1.2.3", 80, "10.1.2.3:80", ""},
		{"IPv6", nil, "2001:db8::1", 65535, "[2001:db8::1]:65535", ""},
		{"loopback", nil, "127.0.0.1", 8500, "127.0.0.1:8500", ""},
		{"IPv4 in IPv6", nil, "::ffff:10.1.2.3", 80, "10.1.2.3:80", ""},
		{"inside of the networks", ten, "10.1.2.3", 80, "10.1.2.3:80", ""},
		{"outside of the networks", ten, "127.0.0.1", 8500, "", "is outside of 10.0.0.0/8,fd00::/8"},
		{"metadata service", nil, "169.254.169.254", 80, "", "is link-local"},
		{"metadata service in IPv6", nil, "::ffff:169.254.169.254", 80, "", "is link-local"},
		{"link-local IPv6", nil, "fe80::1", 80, "", "is link-local"},
		{"unspecified", nil, "0.0.0.0", 80, "", "is unspecified"},
		{"unspecified IPv6", nil, "::", 80, "", "is unspecified"},
		{"multicast", nil, "224.0.0.1", 80, "", "is not unicast"},
		{"broadcast", nil, "255.255.255.255", 80, "", "is not unicast"},
		{"zone", nil, "fd00::1%eth0", 80, "", "has a zone"},
		{"host name", nil, "localhost", 80, "", "is not an IP address"},
		{"octal", nil, "010.0.0.1", 80, "", "is not an IP address"},
		{"empty", nil, "", 80, "", "is not an IP address"},
		{"port 0", nil, "10.1.2.3", 0, "", "port 0 is not in 1..65535"},
		{"negative port", nil, "10.1.2.3", -1, "", "port -1 is not in 1..65535"},
		{"port 65536", nil, "10.1.2.3", 65536, "", "port 65536 is not in 1..65535"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := c.networks.Parse(c.host, c.port)
			if c.err != "" {
				if err == nil || !strings.HasSuffix(err.Error(), c.err) || got.IsValid() {
					t.Errorf("Parse = %v, %v, want %q", got, err, c.err)
				}
				return
			}
			if err != nil || got.String() != c.want {
				t.Errorf("Parse = %v, %v, want %v", got, err, c.want)
			}
		})
	}
}
