package controlplane_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/xdstest"
)

var payments = identity.ID{Role: identity.RoleService, Name: "payments"}

// secrets are documents of which each has a word that nobody else may read,
// except those that are named with it.
var secretDocuments = map[string]string{
	"mesh":      meshYAML,
	"public":    strings.Replace(publicYAML, "/{service}/**", "/public-word/{service}/**", 1),
	"orders":    strings.Replace(ordersYAML, "path: /orders", "path: /orders-word", 1),
	"inventory": strings.Replace(inventoryYAML, "/stock/", "/inventory-word/", 1),
	"payments": `
kind: Service
name: payments
routes:
  - {name: pay, match: {method: POST, path: /payments-word}, allow: "true"}
`,
}

// readers are who may read each word: the document's own, and callers of what
// it is about, whose Envoys route by it.
var readers = map[string][]identity.ID{
	"public-word":    {gateway},
	"orders-word":    {orders, gateway},
	"inventory-word": {inventory, orders},
	"payments-word":  {payments},
}

// owned are names of resources that one workload alone may be given.
var owned = map[string]identity.ID{
	"gateway/public": gateway, "service/orders": orders, "service/inventory": inventory, "service/payments": payments,
}

var allTypes = []string{
	resource.ClusterType, resource.RouteType, resource.ListenerType, resource.EndpointType, resource.SecretType,
	resource.RuntimeType, resource.ScopedRouteType, resource.VirtualHostType, resource.ExtensionConfigType,
	resource.ThriftRouteType, resource.RateLimitConfigType, resource.AnyType,
	policyType, revisionType, providerType, passportKeysType, signingKeysType, trustType,
}

// guesses are the names that an attacker asks for.
func guesses() []string {
	names := []string{
		"*", "", "/", "..", "trust", "revision", "gateway", "inbound", "outbound", "chancery_application", "default", "ROOTCA",
		"identity", "kubernetes://orders-cacert", "spiffe://shop.example", "*/orders", "orders*", "orders\x00", "xdstp://shop.example/x/*",
	}
	for _, name := range []string{"public", "orders", "inventory", "payments"} {
		for _, form := range []string{
			"%s", "%s/", "/%s", "../%s", "./%s", "%s~list", "service/%s", "gateway/%s", "service/../gateway/%s", "service%%2f%s", "SERVICE/%s",
			"spiffe://shop.example/service/%s", "spiffe://shop.example/gateway/%s", "certificate/%s", "trust/%s", "%s-cacert", "%s\n", " %s",
		} {
			names = append(names, fmt.Sprintf(form, name))
		}
		names = append(names, strings.ToUpper(name), name[:len(name)-1], name+"x")
	}
	return names
}

// disguises are what an attacker says of itself.
func disguises() []*corev3.Node {
	metadata, err := structpb.NewStruct(map[string]any{
		"role": "gateway", "service": "payments", "spiffe_id": "spiffe://shop.example/gateway/public", "CLUSTER_ID": "*",
	})
	if err != nil {
		panic(err)
	}
	return []*corev3.Node{
		{},
		{Id: "service/payments", Cluster: "payments"},
		{Id: "gateway/public", Cluster: "public", Metadata: metadata, UserAgentName: "envoy"},
		{Id: "spiffe://shop.example/control-plane", Cluster: "*", Metadata: metadata},
	}
}

// loot is what an attack came to, by type and name.
type loot map[string]map[string]*discoveryv3.Resource

func (l loot) add(resp *discoveryv3.DeltaDiscoveryResponse) {
	for _, r := range resp.GetResources() {
		if l[resp.GetTypeUrl()] == nil {
			l[resp.GetTypeUrl()] = map[string]*discoveryv3.Resource{}
		}
		l[resp.GetTypeUrl()][r.GetName()] = r
	}
}

// attack asks for everything of a type in every way, and adds what comes.
func (l loot) attack(c *xdstest.Client, node *corev3.Node, typeURL string) {
	held := map[string]string{}
	for name := range owned {
		held[name] = "0"
	}
	c.Send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: typeURL, InitialResourceVersions: held})
	c.Subscribe(typeURL, guesses()...)
	c.Unsubscribe(typeURL, "*")
	c.Subscribe(typeURL, "*", "payments", "service/payments")
	for resp := range c.Until(quiet) {
		l.add(resp)
		c.ACK(resp)
	}
}

// ordinary is what an agent of id gets that asks as it should.
func (r *rig) ordinary(id identity.ID) loot {
	l := loot{}
	c := r.open(id)
	defer c.Close()
	for _, typeURL := range append(slices.Clone(viewTypes), trustType) {
		c.Subscribe(typeURL, "*")
		resp := c.NextACK()
		l.add(resp)
	}
	for typeURL, names := range map[string][]string{
		resource.EndpointType: {"orders", "inventory", "payments"}, passportKeysType: {"public"}, signingKeysType: {"public"},
	} {
		c.Subscribe(typeURL, names...)
		l.add(c.NextACK())
	}
	return l
}

// Nobody reads anything of another's view, whatever he asks for and says he is.
func TestNoByteOfAnothersView(t *testing.T) {
	t.Parallel()
	r := start(t, secretDocuments)
	jwk, _ := newPassportKey(t)
	if _, err := r.enroll(gateway, jwk); err != nil {
		t.Fatal(err)
	}
	for _, service := range []string{"orders", "inventory"} {
		r.dial(gateway)
		r.registry.tell(service, "127.0.0.1:1")
	}
	for _, id := range []identity.ID{gateway, orders, inventory, payments} {
		t.Run(id.String(), func(t *testing.T) {
			t.Parallel()
			r := r.with(t)
			due := r.ordinary(id)
			due.check(t, id)
			for _, node := range disguises() {
				got := loot{}
				for _, typeURL := range allTypes {
					c := r.open(id)
					got.attack(c, node, typeURL)
					c.Close()
				}
				got.check(t, id)
				for typeURL, resources := range got {
					for name, resource := range resources {
						if !proto.Equal(resource, due[typeURL][name]) {
							t.Errorf("as %q: %s %q is more than its due", node.GetId(), typeURL, name)
						}
					}
				}
			}
		})
	}
}

// check fails when there is a word, or a name, that id may not read.
func (l loot) check(t *testing.T, id identity.ID) {
	t.Helper()
	found := map[string]bool{}
	for typeURL, resources := range l {
		for name, r := range resources {
			if owner, ok := owned[name]; ok && owner != id {
				t.Errorf("%s was given %s %q", id, typeURL, name)
			}
			text, err := proto.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			for word := range readers {
				found[word] = found[word] || bytes.Contains(text, []byte(word))
			}
		}
	}
	for _, word := range slices.Sorted(maps.Keys(readers)) {
		if found[word] != slices.Contains(readers[word], id) {
			t.Errorf("%s read %q: %v", id, word, found[word])
		}
	}
}
