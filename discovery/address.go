package discovery

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ValidName reports whether name can name a service of the mesh: one
// lower-case DNS label, so that it stands unescaped in a URL, a SPIFFE ID and a
// host, and no two names differ in case alone.
func ValidName(name string) bool { return validName.MatchString(name) }

// Networks is where instances may be. Empty allows every unicast address that
// is not link-local: loopback too, since sidecars may share a host.
type Networks []netip.Prefix

// Parse returns the address of an instance. The host must be an IP address: a
// name would let whoever answers for it choose where requests go.
func (n Networks) Parse(host string, port int) (netip.AddrPort, error) {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address %q is not an IP address", host)
	}
	if port < 1 || port > 65535 {
		return netip.AddrPort{}, fmt.Errorf("port %d is not in 1..65535", port)
	}
	// An IPv4 address in IPv6 clothes is judged as what it reaches.
	ip = ip.Unmap()
	if err := n.check(ip); err != nil {
		return netip.AddrPort{}, fmt.Errorf("address %q %w", host, err)
	}
	return netip.AddrPortFrom(ip, uint16(port)), nil
}

func (n Networks) check(ip netip.Addr) error {
	switch {
	case ip.Zone() != "":
		return errors.New("has a zone")
	case ip.IsUnspecified():
		return errors.New("is unspecified")
	case ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return errors.New("is not unicast")
	case ip.IsLinkLocalUnicast():
		return errors.New("is link-local")
	case len(n) > 0 && !n.contain(ip):
		return fmt.Errorf("is outside of %s", n)
	}
	return nil
}

func (n Networks) contain(ip netip.Addr) bool {
	for _, p := range n {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// String lists the networks, separated by commas.
func (n Networks) String() string {
	all := make([]string, len(n))
	for i, p := range n {
		all[i] = p.String()
	}
	return strings.Join(all, ",")
}
