package controlplane_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Views are only made again where something changed that they are made of.
// What comes of it must be what a control plane makes that starts with these
// documents.
func TestChangesReachEveryViewTheyConcern(t *testing.T) {
	t.Parallel()
	idp := down(t)
	replace := func(file, old, text string) map[string]string {
		docs := shop()
		if !strings.Contains(docs[file], old) {
			t.Fatalf("%s has no %q", file, old)
		}
		docs[file] = strings.Replace(docs[file], old, text, 1)
		return docs
	}
	with := func(docs map[string]string, file, text string) map[string]string {
		docs[file] = text
		return docs
	}
	withRego := func(allow string) map[string]string {
		docs := withProvider(idp.URL)
		docs["public"] = strings.Replace(docs["public"], "rewrite: /**", "rewrite: /**\n    rego: {module: orders, query: data.orders.allow}", 1)
		return with(docs, "rego", "kind: Rego\nname: orders\nmodules: [orders.rego]\ntexts: ['package orders\n\nallow := "+allow+"']\n")
	}
	tests := map[string]map[string]string{
		"the life of Passports":     replace("mesh", "trustDomain", "passport: {lifetime: 30s}\ntrustDomain"),
		"where a gateway listens":   replace("public", "8080", "8081"),
		"a service that is used":    with(shop(), "inventory", withTimeout(inventoryYAML, "9s")),
		"how one is reached":        replace("inventory", "callers", "mtls: off\ncallers"),
		"a new caller":              replace("inventory", "[orders]", "[orders, public]"),
		"a new service":             with(shop(), "extra", "kind: Service\nname: extra\ncallers: [public]\nroutes: [{name: all, match: {path: /**}, allow: 'true'}]\n"),
		"a new gateway":             with(shop(), "partner", strings.NewReplacer("public", "partner", "8080", "8082").Replace(publicYAML)),
		"a service becomes gateway": with(replace("inventory", "callers: [orders]", "callers: [orders, edge]"), "edge", strings.NewReplacer("public", "edge", "8080", "8083").Replace(publicYAML)),
		"a breaker":                 with(shop(), "inventory", strings.Replace(inventoryYAML, `allow: "true"`, `allow: "true", circuitBreaker: {maxRequests: 2}`, 1)),
		"a route":                   with(shop(), "orders", ordersYAML+"  - {name: one, match: {path: '/orders/{id}'}, allow: 'true'}\n"),
		"the life of certificates":  replace("mesh", "trustDomain", "certificates: {lifetime: 1h}\ntrustDomain"),
		"what is recorded":          replace("mesh", "trustDomain", "decisions: {log: off}\ntrustDomain"),
		"roles":                     with(shop(), "roles", "kind: Roles\nname: all\nroles: [{name: clerk, groups: [sales]}]\n"),
		"an identity provider":      withProvider(idp.URL, "clockSkew: 5s\n"),
		"a Rego policy":             withRego("false"),
		"a client":                  with(shop(), "till", "kind: Client\nname: till\nowner: a\n"),
		"an expression":             replace("orders", `allow: "true"`, `allow: "false"`),
	}
	// What it is before the change, if not the shop. The name edge is a service's at
	// first.
	befores := map[string]map[string]string{
		"a service becomes gateway": with(maps.Clone(tests["a service becomes gateway"]), "edge", "kind: Service\nname: edge\nuses: [inventory]\n"),
		"an identity provider":      withProvider(idp.URL),
		"a Rego policy":             withRego("true"),
	}
	for name, docs := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := befores[name]
			if first == nil {
				first = shop()
			}
			r := start(t, first)
			r.until("it has begun", func() bool { return r.log.has("documents served") })
			unchanged := r.revisions()
			for file, text := range docs {
				if first[file] != text {
					r.write(file, text)
				}
			}
			want := start(t, docs)
			want.until("the other has begun", func() bool { return want.log.has("documents served") })
			if cmp.Equal(unchanged, want.revisions()) {
				t.Fatal("the change changes nothing")
			}
			r.until("it has arrived", func() bool { return r.log.count("documents served") == 2 })
			if diff := cmp.Diff(want.revisions(), r.revisions()); diff != "" {
				t.Errorf("revisions (-from scratch +by the change):\n%s", diff)
			}
		})
	}
}

// revisions returns the revision of each view.
func (r *rig) revisions() map[string]string {
	r.t.Helper()
	revisions := map[string]string{}
	for _, v := range r.status().Views {
		revisions[v.Name] = v.Revision
	}
	return revisions
}
