package controlplane

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/mesh"
)

// Type URLs of our own resources.
var (
	policyType       = xds.TypeURL(&chancerypb.Policy{})
	revisionType     = xds.TypeURL(&chancerypb.Revision{})
	providerType     = xds.TypeURL(&chancerypb.Provider{})
	accountsType     = xds.TypeURL(&chancerypb.Accounts{})
	passportKeysType = xds.TypeURL(&chancerypb.PassportKeys{})
	signingKeysType  = xds.TypeURL(&chancerypb.SigningKeys{})
)

// revisedTypes are what a revision speaks of: the resources of one view. They
// go out in this order, the revision last.
var revisedTypes = []string{resource.ClusterType, resource.RouteType, resource.ListenerType, policyType}

// revisionName is the name of a view's one Revision.
const revisionName = "revision"

// generation is one state of a view. It is immutable.
type generation struct {
	// revision identifies the content.
	revision string
	// content is what it was made from, inputs the part of the model that was
	// looked at.
	*content
	inputs []any
	// resources by type, the Revision included.
	resources map[string][]*xds.Resource
	// digests of the sets of resources, by type.
	digests map[string]string
	// madeOf leads from resources to the documents to suspect when one is
	// rejected.
	madeOf map[resourceKey][]mesh.DocumentID
	// accounts are those that its policy refers to, pinned.
	accounts []*xds.Resource
	// needs are the names of shared resources that it refers to, by type.
	needs map[string][]string
}

// resourceKey names one resource of a view.
type resourceKey struct{ typeURL, name string }

// newGeneration makes the generation of a view.
func newGeneration(c *content, id identity.ID) (*generation, error) {
	if !c.has(id) {
		return nil, errNoDocument
	}
	g := &generation{
		content:   c,
		inputs:    inputs(c, id),
		accounts:  c.accountsOf(id),
		resources: map[string][]*xds.Resource{},
		digests:   map[string]string{},
		madeOf:    map[resourceKey][]mesh.DocumentID{},
	}
	resources, policy := translated(c.mesh, id)
	for _, r := range resources {
		if err := g.add(r.Name, r.Message, r.Message, r.Documents); err != nil {
			return nil, err
		}
	}
	p := policy.Message.(*chancerypb.Policy)
	p.Accounts = namesOf(g.accounts)
	if err := g.add(policy.Name, p, p.WithoutPositions(), policy.Documents); err != nil {
		return nil, err
	}
	g.needs = map[string][]string{
		resource.EndpointType: envoy.EndpointNames(resources),
		providerType:          translate.ProviderNames(p),
		accountsType:          slices.Concat(p.Accounts, unpinned(p.Accounts)),
		passportKeysType:      p.GetGateways(),
	}
	if id.Role == identity.RoleGateway {
		g.needs[signingKeysType] = []string{id.Name}
	}
	return g, g.seal()
}

func (g *generation) add(name string, m, like proto.Message, documents []mesh.DocumentID) error {
	r, err := xds.NewLike(name, m, like)
	if err != nil {
		return err
	}
	g.resources[r.TypeURL] = append(g.resources[r.TypeURL], r)
	g.madeOf[resourceKey{r.TypeURL, name}] = documents
	return nil
}

// seal adds the Revision, which says what the sets are.
func (g *generation) seal() error {
	all := sha256.New()
	for _, typeURL := range revisedTypes {
		versions := map[string]string{}
		for _, r := range g.resources[typeURL] {
			versions[r.Name] = r.Version
		}
		g.digests[typeURL] = xds.DigestOf(versions).String()
		fmt.Fprintln(all, typeURL, g.digests[typeURL])
	}
	g.revision = hex.EncodeToString(all.Sum(nil)[:6])
	revision := &chancerypb.Revision{Id: g.revision, Digests: maps.Clone(g.digests)}
	return g.add(revisionName, revision, revision, nil)
}

// unpinned returns the names of what there is of pinned resources now: what
// became of it since.
func unpinned(names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i], _ = xds.Unpin(name)
	}
	return out
}

func namesOf(resources []*xds.Resource) (names []string) {
	for _, r := range resources {
		names = append(names, r.Name)
	}
	return names
}

// translated returns the Envoy resources of a view, and its policy.
func translated(m *mesh.Mesh, id identity.ID) (resources []envoy.Resource, policy envoy.Resource) {
	var p *chancerypb.Policy
	documents := []mesh.DocumentID{{Kind: mesh.KindMesh, Name: m.Name}}
	if id.Role == identity.RoleGateway {
		g := m.Gateway(id.Name)
		resources, p = envoy.Gateway(m, g), translate.Gateway(m, g)
		documents = append(documents, mesh.DocumentID{Kind: mesh.KindGateway, Name: id.Name})
	} else {
		s := m.Service(id.Name)
		resources, p = envoy.Sidecar(m, s), translate.Service(m, s)
		documents = append(documents, mesh.DocumentID{Kind: mesh.KindService, Name: id.Name})
	}
	for _, name := range translate.ProviderNames(p) {
		documents = append(documents, mesh.DocumentID{Kind: mesh.KindIdentityProvider, Name: name})
	}
	for _, r := range p.GetRego() {
		documents = append(documents, mesh.DocumentID{Kind: mesh.KindRego, Name: r.GetName()})
	}
	return resources, envoy.Resource{TypeURL: policyType, Name: p.GetName(), Message: p, Documents: documents}
}

// inputs returns everything of the content that the view of id is made from. Two
// contents with equal inputs make equal views. Whether a caller is a gateway or a
// service is among them: a gateway that may call a service is in its Gateways.
func inputs(c *content, id identity.ID) []any {
	m := c.mesh
	// All but what there may be much of, so that nothing is forgotten.
	rest := *m
	rest.Gateways, rest.Services, rest.Clients, rest.APIKeys, rest.Users = nil, nil, nil, nil, nil
	in := []any{rest}
	if id.Role == identity.RoleGateway {
		in = append(in, m.Gateway(id.Name), namesOf(c.accountsOf(id)))
		for _, s := range m.Services {
			if serves(s, id.Name) {
				in = append(in, s)
			}
		}
		return in
	}
	s := m.Service(id.Name)
	in = append(in, s)
	for _, name := range s.Uses {
		in = append(in, m.Service(name))
	}
	return in
}

// serves reports whether a service lets a gateway call any of its routes.
func serves(s *mesh.Service, gateway string) bool {
	return slices.ContainsFunc(s.Routes, func(r mesh.Route) bool { return slices.Contains(r.Callers, gateway) })
}

// madeFrom reports whether g is what c would make.
func (g *generation) madeFrom(c *content, id identity.ID) bool {
	return reflect.DeepEqual(g.inputs, inputs(c, id))
}

// with returns the same generation, made from content that says the same.
func (g *generation) with(c *content) *generation {
	same := *g
	same.content = c
	return &same
}

// sources returns the documents that any of its resources was made of, some
// more than once.
func (g *generation) sources() iter.Seq[mesh.DocumentID] {
	return func(yield func(mesh.DocumentID) bool) {
		for _, ids := range g.madeOf {
			for _, id := range ids {
				if !yield(id) {
					return
				}
			}
		}
	}
}

// suspects returns the documents that may have caused a rejection: those that
// the rejected resources were made of, and, where the error text names some of
// the resources or documents, only these.
func (g *generation) suspects(typeURL string, rejected []string, text string) (suspects []mesh.DocumentID, named bool) {
	rejected, byResource := mentioned(rejected, text, func(name string) string { return name })
	for _, name := range rejected {
		suspects = append(suspects, g.madeOf[resourceKey{typeURL, name}]...)
	}
	suspects, byDocument := mentioned(suspects, text, func(id mesh.DocumentID) string { return id.Name })
	return suspects, byResource || byDocument
}

// mentioned returns those of list whose name stands in text as a word of its
// own, or all when none does.
func mentioned[T any](list []T, text string, name func(T) string) (found []T, some bool) {
	for _, item := range list {
		if mentions(text, name(item)) {
			found = append(found, item)
		}
	}
	if len(found) == 0 {
		return list, false
	}
	return found, true
}

func mentions(text, name string) bool {
	for name != "" {
		i := strings.Index(text, name)
		if i < 0 {
			return false
		}
		before, after := text[:i], text[i+len(name):]
		if !endsInName(before) && !startsInName(after) {
			return true
		}
		text = after
	}
	return false
}

func endsInName(s string) bool { return s != "" && isNameByte(s[len(s)-1]) }

func startsInName(s string) bool { return s != "" && isNameByte(s[0]) }

func isNameByte(b byte) bool {
	return b == '-' || b == '_' || '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
}
