// Package identity says who is who: SPIFFE IDs, the certificates that show
// them ([SVID]), what those are verified against ([Trust]), and the
// authenticated [Peer] of every connection with the control plane
// ([ServerCredentials], [ClientCredentials]). It issues nothing; package
// identity/ca does.
package identity

import (
	"crypto/x509"
	"fmt"
	"regexp"
	"strings"
)

// Role is what a workload is.
type Role string

// The roles of workloads.
const (
	RoleService Role = "service"
	RoleGateway Role = "gateway"
	// RoleControlPlane has one bearer, [ControlPlane], whose ID has no name.
	RoleControlPlane Role = "control-plane"
)

// ControlPlane is who agents get everything from.
var ControlPlane = ID{Role: RoleControlPlane}

// ID names a workload inside its trust domain. The zero value means "none".
type ID struct {
	Role Role
	Name string
}

// String returns "role/name", or "control-plane".
func (id ID) String() string {
	if id == ControlPlane {
		return string(id.Role)
	}
	return string(id.Role) + "/" + id.Name
}

// IsZero reports whether id names nobody.
func (id ID) IsZero() bool { return id == ID{} }

// SPIFFE returns the SPIFFE ID of id in a trust domain.
func (id ID) SPIFFE(trustDomain string) string {
	return "spiffe://" + trustDomain + "/" + id.String()
}

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ParseID is the exact inverse of [ID.String]: whatever it would not have
// written is an error.
func ParseID(s string) (ID, error) {
	if s == ControlPlane.String() {
		return ControlPlane, nil
	}
	id, err := ParseWorkload(s)
	if err != nil {
		return ID{}, fmt.Errorf("%q is neither a workload nor the control plane", s)
	}
	return id, nil
}

// ParseWorkload is [ParseID] for services and gateways alone.
func ParseWorkload(s string) (ID, error) {
	role, name, _ := strings.Cut(s, "/")
	id := ID{Role: Role(role), Name: name}
	switch {
	case id.Role != RoleService && id.Role != RoleGateway:
		return ID{}, fmt.Errorf(`%q is not a workload: write "service/NAME" or "gateway/NAME"`, s)
	case !validName.MatchString(name):
		return ID{}, fmt.Errorf(`%q is not a workload: a name has lower-case letters a to z, digits, and "-" between them, 63 at most`, s)
	}
	return id, nil
}

// ParseSPIFFE is the exact inverse of [ID.SPIFFE]: whatever it would not have
// written is an error, so a name that looks alike, is a prefix, or is encoded
// differently is never taken for another.
func ParseSPIFFE(trustDomain, s string) (ID, error) {
	rest, ok := strings.CutPrefix(s, "spiffe://"+trustDomain+"/")
	id, err := ParseID(rest)
	if !ok || err != nil {
		return ID{}, fmt.Errorf("SPIFFE ID %q is not a workload of trust domain %q", s, trustDomain)
	}
	return id, nil
}

// Peer is the authenticated other side of a connection to the control plane.
// It comes from the connection alone, never from what a message claims.
type Peer struct {
	// ID is zero for a client that showed no certificate.
	ID ID
	// Certificate is what it showed, verified; nil if it showed none.
	Certificate *x509.Certificate
}

// AuthType implements credentials.AuthInfo.
func (Peer) AuthType() string { return "chancery" }
