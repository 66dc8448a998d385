// Package discovery says who runs where: the [Registry] interface and what its
// implementations share. It does not know that Envoy exists.
//
// What a registry says is a claim. [Networks] and [ValidName] refuse what can
// be no instance of the mesh, and [Keeper] refuses to forget instances only
// because a registry that is itself in trouble stopped naming them.
package discovery

import (
	"cmp"
	"context"
	"net/netip"
)

// Health is what the registry says of an instance that may take traffic.
type Health string

// Instances that are critical are not reported at all.
const (
	Passing Health = "passing"
	Warning Health = "warning"
)

// Instance is one address of a service.
type Instance struct {
	// ID is unique in its service.
	ID string
	// Address is where the service itself listens.
	Address netip.AddrPort
	// Mesh is where its sidecar listens; the zero value says that it has none.
	Mesh   netip.AddrPort
	Weight uint32
	Health Health
}

// ByID orders instances.
func ByID(a, b Instance) int { return cmp.Compare(a.ID, b.ID) }

// Update is the whole state of one service.
type Update struct {
	Service string
	// Instances, sorted by ID. Empty is a fact: the service has none.
	Instances []Instance
	// Held says that the registry's last answer was not wholly believed, or
	// did not come; Reason says why, in words that do not vary. The instances
	// are then the last good ones.
	Held   bool
	Reason string
}

// Registry tells where services run.
type Registry interface {
	// Run watches the services of the last call to Want and hands every
	// change to notify, one call at a time, until ctx ends; it returns nil
	// then. A service is reported at least once, as soon as its state is
	// known, empty when it has no instance.
	Run(ctx context.Context, notify func(Update)) error
	// Want replaces the set of watched services. Safe to call at any time,
	// before Run too.
	Want(services []string)
	// Ready reports whether every wanted service was reported at least once,
	// and otherwise what is waited for or wrong.
	Ready() error
}
