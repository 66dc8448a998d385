package throttle

import "net/netip"

// Network returns all that one client commands, which counts as one: an IPv4
// address, also as IPv6 has it, or the /64 of an IPv6 address. It is zero for no
// address.
func Network(address netip.Addr) netip.Prefix {
	address = address.Unmap().WithZone("")
	bits := 64
	if address.Is4() {
		bits = 32
	}
	prefix, _ := address.Prefix(bits)
	return prefix
}
