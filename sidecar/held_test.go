package sidecar_test

import (
	"testing"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/sidecar"
)

func TestRevisionIsCompleteWhenEverythingIsAnswered(t *testing.T) {
	t.Parallel()
	h := sidecar.NewHeld()
	resources := byType(view(t, "orders", "stock"))
	complete := func(want string) {
		t.Helper()
		if got, _ := h.Complete(); got != want {
			t.Errorf("complete revision is %q, want %q", got, want)
		}
	}
	applyView(t, h, "rev-1", view(t, "orders", "stock"))
	complete("")
	h.Apply(resource.EndpointType, resources[resource.EndpointType][:1])
	complete("")
	h.Apply(providerType, resources[providerType])
	complete("")
	h.Apply(signingKeysType, []*xds.Resource{encode(t, public.Name, &chancerypb.SigningKeys{})})
	complete("")
	h.Apply(resource.EndpointType, nil, "stock") // does not exist: an answer, too
	complete("rev-1")
	h.Apply(resource.RouteType, nil, "gateway")
	complete("")
}

// Accounts that are pinned are of a revision: it is never complete without them,
// and another is on its way where they have gone.
func TestRevisionIsNotCompleteWithoutItsAccounts(t *testing.T) {
	t.Parallel()
	h := sidecar.NewHeld()
	resources := newShop("internal", "internal").view(t, "orders")
	applyView(t, h, "rev-1", resources)
	for _, typeURL := range []string{resource.EndpointType, providerType} {
		h.Apply(typeURL, byType(resources)[typeURL])
	}
	h.Apply(signingKeysType, []*xds.Resource{encode(t, public.Name, &chancerypb.SigningKeys{})})
	accounts := byType(resources)[accountsType]
	h.Apply(accountsType, accounts[:3], accounts[3].Name)
	if id, _ := h.Complete(); id != "" {
		t.Errorf("%s is complete without %s", id, accounts[3].Name)
	}
	h.Apply(accountsType, accounts[3:], accounts[0].Name) // its document is gone: an answer, too
	if id, _ := h.Complete(); id != "rev-1" {
		t.Errorf("%q is complete", id)
	}
}

func TestSharedResourcesStayUntilNoRevisionNeedsThem(t *testing.T) {
	t.Parallel()
	h := sidecar.NewHeld()
	before := view(t, "orders", "stock")
	applyView(t, h, "rev-1", before)
	for _, typeURL := range []string{resource.EndpointType, providerType} {
		h.Apply(typeURL, byType(before)[typeURL])
	}
	h.Apply(signingKeysType, []*xds.Resource{encode(t, public.Name, &chancerypb.SigningKeys{})})
	_, pruneFirst := h.Complete()
	// Their removal comes first, then the view that does without them.
	h.Apply(resource.EndpointType, nil, "stock")
	applyView(t, h, "rev-2", view(t, "orders"))
	_, pruneSecond := h.Complete()
	pruneFirst()
	if diff := cmp.Diff([]string{"orders", "stock"}, h.Names(resource.EndpointType)); diff != "" {
		t.Errorf("while Envoy has the first revision (-want +got):\n%s", diff)
	}
	pruneSecond()
	if diff := cmp.Diff([]string{"orders"}, h.Names(resource.EndpointType)); diff != "" {
		t.Errorf("when Envoy has the second revision (-want +got):\n%s", diff)
	}
	if n := h.Absent(); n != 0 {
		t.Errorf("%d names that nobody needs are remembered not to exist", n)
	}
}

// applyView applies a view and its Revision, but not what is shared.
func applyView(t *testing.T, h sidecar.Held, id string, resources []*xds.Resource) {
	t.Helper()
	digests := map[string]string{}
	for _, typeURL := range viewTypes {
		versions := map[string]string{}
		for _, r := range byType(resources)[typeURL] {
			versions[r.Name] = r.Version
		}
		for _, name := range h.Names(typeURL) {
			if versions[name] == "" {
				h.Apply(typeURL, nil, name)
			}
		}
		h.Apply(typeURL, byType(resources)[typeURL])
		digests[typeURL] = xds.DigestOf(versions).String()
	}
	h.Apply(revisionType, []*xds.Resource{encode(t, "revision", &chancerypb.Revision{Id: id, Digests: digests})})
}
