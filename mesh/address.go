package mesh

import (
	"fmt"
	"net/netip"
	"slices"
)

// CheckAddress returns an error if Chancery must not call an address that a
// document, or a provider that a document names, led to. Link-local addresses
// and the metadata services of clouds, which give whoever asks from this host
// its credentials, are never called; loopback and private networks only if the
// document allows it.
func CheckAddress(address netip.Addr, allowPrivate bool) error {
	to := meant(address)
	switch {
	case isNobodys(to) || isIn(to, metadataServices):
		return fmt.Errorf("%s is an address that is never called: link-local, of a metadata service, or nobody's", address)
	case allowPrivate:
		return nil
	case to.IsLoopback(), to.IsPrivate(), isIn(to, privateNetworks):
		return fmt.Errorf("%s is a private address: if it is meant, set allowPrivate: true in the document", address)
	}
	return nil
}

// nat64 is where IPv6-only networks find IPv4 addresses (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// meant returns the IPv4 address that an IPv6 address stands for, if it does.
func meant(a netip.Addr) netip.Addr {
	if a = a.Unmap().WithZone(""); nat64.Contains(a) {
		b := a.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a
}

var (
	// metadataServices that are not link-local.
	metadataServices = prefixes("100.100.100.200/32", "168.63.129.16/32",
		"fd00:ec2::254/128", "fd20:ce::254/128", "fd00:c1::a9fe:a9fe/128", "fd00:42::42/128")
	// privateNetworks beside those of RFC 1918 and RFC 4193.
	privateNetworks = prefixes("100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15", "fec0::/10")
	// nobodys networks name no host, or another one in a way that nobody uses:
	// reserved ones, IPv4 in IPv6 (compatible, Teredo, 6to4, local NAT64).
	nobodys = prefixes("0.0.0.0/8", "240.0.0.0/4", "::/96", "2001::/32", "2002::/16", "64:ff9b:1::/48")
)

func isNobodys(a netip.Addr) bool {
	return !a.IsValid() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || !a.IsLoopback() && isIn(a, nobodys)
}

func isIn(a netip.Addr, list []netip.Prefix) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}
