package rig

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
)

// The ports that a rig takes lie below those that Linux gives to outgoing
// connections: none of the traffic can take a port while its owner restarts.
const firstPort, lastPort = 20000, 30000

// ports hands out loopback addresses.
type ports struct{ given map[uint16]bool }

// next returns an address that nobody listens on.
func (p *ports) next() (netip.AddrPort, error) {
	if p.given == nil {
		p.given = map[uint16]bool{}
	}
	for range 1000 {
		port := uint16(firstPort + rand.N(lastPort-firstPort))
		if p.given[port] {
			continue
		}
		p.given[port] = true
		address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(address))
		if err == nil {
			return address, l.Close()
		}
	}
	return netip.AddrPort{}, errors.New("no free port on loopback")
}
