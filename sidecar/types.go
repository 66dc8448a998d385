package sidecar

import (
	"fmt"
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// The type URLs of Chancery's own resources.
var (
	policyType       = xds.TypeURL(&chancerypb.Policy{})
	providerType     = xds.TypeURL(&chancerypb.Provider{})
	accountsType     = xds.TypeURL(&chancerypb.Accounts{})
	passportKeysType = xds.TypeURL(&chancerypb.PassportKeys{})
	signingKeysType  = xds.TypeURL(&chancerypb.SigningKeys{})
	revisionType     = xds.TypeURL(&chancerypb.Revision{})
	trustType        = xds.TypeURL(&chancerypb.Trust{})
	revocationsType  = xds.TypeURL(&chancerypb.Revocations{})
)

// trustName is the name of the one Trust resource.
const trustName = "trust"

var (
	// revisedTypes make up a revision: all of a view's resources of each.
	revisedTypes = []string{resource.ClusterType, resource.ListenerType, resource.RouteType, policyType}
	// namedTypes are shared by all views and asked for by name.
	namedTypes = []string{resource.EndpointType, providerType, accountsType, passportKeysType, signingKeysType}
	// ownTypes are the agent's own; of the last two, what is in force is kept
	// by trust and revocations.
	ownTypes = []string{revisionType, trustType, revocationsType}
)

// isKnown reports whether the agent has any business with a type.
func isKnown(typeURL string) bool {
	return slices.Contains(ownTypes, typeURL) || slices.Contains(revisedTypes, typeURL) || slices.Contains(namedTypes, typeURL)
}

// set is resources of one type by name.
type set map[string]*xds.Resource

// versions returns the version of each resource.
func (s set) versions() map[string]string {
	versions := make(map[string]string, len(s))
	for name, r := range s {
		versions[name] = r.Version
	}
	return versions
}

// list returns the resources in no order.
func (s set) list() []*xds.Resource {
	list := make([]*xds.Resource, 0, len(s))
	for _, r := range s {
		list = append(list, r)
	}
	return list
}

// parse takes the resources of a response, all of which must be of its type
// and decode.
func parse(resp *discoveryv3.DeltaDiscoveryResponse) ([]*xds.Resource, error) {
	if !isKnown(resp.GetTypeUrl()) {
		return nil, fmt.Errorf("unknown type %q", resp.GetTypeUrl())
	}
	resources := make([]*xds.Resource, 0, len(resp.GetResources()))
	for _, d := range resp.GetResources() {
		if got := d.GetResource().GetTypeUrl(); got != resp.GetTypeUrl() {
			return nil, fmt.Errorf("resource %q is of type %q", d.GetName(), got)
		}
		r := xds.FromDelta(d)
		if _, err := decode(r); err != nil {
			return nil, err
		}
		resources = append(resources, r)
	}
	return resources, nil
}

// decode decodes a resource of any type that the agent knows.
func decode(r *xds.Resource) (proto.Message, error) {
	m, err := r.Delta().GetResource().UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("decode resource %q: %w", r.Name, err)
	}
	return m, nil
}

// decodeAll decodes the resources of a set that were checked by [parse] when
// they came.
func decodeAll[M proto.Message](s set) []M {
	messages := make([]M, 0, len(s))
	for _, r := range s {
		if m, err := decode(r); err == nil {
			messages = append(messages, m.(M))
		}
	}
	return messages
}
