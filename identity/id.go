// Package identity gives workloads their identity: SPIFFE IDs, the mesh's
// certificate authority, and the authenticated [Peer] of every call to the
// control plane.
package identity

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/grpc/peer"
)

// Role is what a workload is.
type Role string

// The roles of workloads.
const (
	RoleService Role = "service"
	RoleGateway Role = "gateway"
)

// ID names a workload inside its trust domain. The zero value means "none".
type ID struct {
	Role Role
	Name string
}

// String returns "role/name".
func (id ID) String() string { return string(id.Role) + "/" + id.Name }

// IsZero reports whether id names nobody.
func (id ID) IsZero() bool { return id == ID{} }

// SPIFFE returns the SPIFFE ID of id in a trust domain.
func (id ID) SPIFFE(trustDomain string) string {
	return "spiffe://" + trustDomain + "/" + id.String()
}

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ParseSPIFFE is the exact inverse of [ID.SPIFFE]: whatever it would not have
// written is an error, so a name that looks alike, is a prefix, or is encoded
// differently is never taken for another.
func ParseSPIFFE(trustDomain, s string) (ID, error) {
	rest, ok := strings.CutPrefix(s, "spiffe://"+trustDomain+"/")
	role, name, ok2 := strings.Cut(rest, "/")
	id := ID{Role: Role(role), Name: name}
	if !ok || !ok2 || (id.Role != RoleService && id.Role != RoleGateway) || !validName.MatchString(name) {
		return ID{}, fmt.Errorf("SPIFFE ID %q is not a workload of trust domain %q", s, trustDomain)
	}
	return id, nil
}

// Peer is the authenticated other side of a connection to the control plane.
// It comes from the connection alone, never from what a message claims.
type Peer struct {
	ID ID
}

// AuthType implements credentials.AuthInfo.
func (Peer) AuthType() string { return "chancery" }

// PeerFromContext returns the authenticated peer of a gRPC call.
func PeerFromContext(ctx context.Context) (Peer, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Peer{}, false
	}
	info, ok := p.AuthInfo.(Peer)
	return info, ok && !info.ID.IsZero()
}
