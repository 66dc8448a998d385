package policy

import (
	"net/netip"
	"strings"
)

// hostName returns the host of an authority in its one spelling: in lower case,
// without port and without the dot that may end a name; an IPv6 address in its
// brackets and its shortest form. Empty is what is no host.
func hostName(authority string) string {
	host := authority
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		if strings.Trim(host[i+1:], "0123456789") != "" {
			return ""
		}
		host = host[:i]
	}
	if strings.HasPrefix(host, "[") {
		return addressInBrackets(host)
	}
	host = strings.TrimSuffix(host, ".")
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || strings.Trim(label, labelCharacters) != "" {
			return ""
		}
	}
	return strings.ToLower(host)
}

const labelCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func addressInBrackets(host string) string {
	ip, err := netip.ParseAddr(strings.TrimSuffix(host[1:], "]"))
	if err != nil || !ip.Is6() || ip.Zone() != "" || !strings.HasSuffix(host, "]") {
		return ""
	}
	return "[" + ip.String() + "]"
}
