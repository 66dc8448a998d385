package sidecar

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// held is what the agent holds of the control plane's resources. It is safe
// for concurrent use.
type held struct {
	mu   sync.Mutex
	sets map[string]set
	// absent are the names, of each of namedTypes, that the control plane said
	// do not exist.
	absent map[string]map[string]struct{}
	// needs are the names of namedTypes that the rest refers to, and live those of
	// accounts as of now that earlier revisions do which still decide.
	needs map[string][]string
	live  []string
	// last is the newest revision that was complete.
	last *revision
	// current is the last Revision resource.
	current *chancerypb.Revision
}

func newHeld() *held {
	h := &held{sets: map[string]set{}, absent: map[string]map[string]struct{}{}}
	for _, typeURL := range slices.Concat(revisedTypes, ownTypes) {
		h.sets[typeURL] = set{}
	}
	for _, typeURL := range namedTypes {
		h.sets[typeURL] = set{}
		h.absent[typeURL] = map[string]struct{}{}
	}
	return h
}

// apply takes resources of one type, which must decode, and removes names. What
// is asked for by name is kept even so until no revision refers to it: its
// removal comes ahead of the revision that does without it. But for accounts of
// now: those that are gone are let in no more.
func (h *held) apply(typeURL string, put []*xds.Resource, removed []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range put {
		h.sets[typeURL][r.Name] = r
		delete(h.absent[typeURL], r.Name)
	}
	for _, name := range removed {
		if absent := h.absent[typeURL]; absent != nil {
			absent[name] = struct{}{}
			if isOfNow(typeURL, name) {
				delete(h.sets[typeURL], name)
			}
		} else {
			delete(h.sets[typeURL], name)
		}
	}
	switch typeURL {
	case resource.ClusterType, policyType:
		h.needs = findNeeds(h.sets)
	case revisionType:
		h.current = nil
		for _, r := range decodeAll[*chancerypb.Revision](h.sets[revisionType]) {
			h.current = r
		}
	}
}

// findNeeds reads the names of namedTypes out of what refers to them.
func findNeeds(sets map[string]set) map[string][]string {
	needs := map[string][]string{resource.EndpointType: endpointNames(sets[resource.ClusterType])}
	for _, p := range decodeAll[*chancerypb.Policy](sets[policyType]) {
		needs[providerType] = append(needs[providerType], translate.ProviderNames(p)...)
		for _, name := range p.GetAccounts() {
			now, _ := xds.Unpin(name)
			needs[accountsType] = append(needs[accountsType], name, now)
		}
		needs[passportKeysType] = append(needs[passportKeysType], p.GetGateways()...)
		if gateway, ok := strings.CutPrefix(p.GetName(), string(identity.RoleGateway)+"/"); ok {
			needs[signingKeysType] = append(needs[signingKeysType], gateway)
		}
	}
	return needs
}

// needed returns the names of one of namedTypes that are wanted.
func (h *held) needed(typeURL string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if typeURL == accountsType {
		names := slices.Concat(h.needs[typeURL], h.live)
		slices.Sort(names)
		return slices.Compact(names)
	}
	return h.needs[typeURL]
}

// revisionID returns the id of the last Revision resource.
func (h *held) revisionID() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.current.GetId()
}

// prune forgets, of some of namedTypes, what is referred to by neither the newest
// state, nor the newest revision, nor any of these, which are all that decide. Nil
// revisions refer to nothing.
func (h *held) prune(typeURLs []string, revs ...*revision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	revs = append(revs, h.last)
	h.live = nil
	for _, rev := range revs {
		if rev != nil {
			h.live = append(h.live, slices.DeleteFunc(slices.Clone(rev.needs[accountsType]), func(name string) bool {
				return !isOfNow(accountsType, name)
			})...)
		}
	}
	for _, typeURL := range typeURLs {
		unneeded := func(name string) bool {
			return !slices.Contains(h.needs[typeURL], name) && !slices.ContainsFunc(revs, func(rev *revision) bool {
				return rev != nil && slices.Contains(rev.needs[typeURL], name)
			})
		}
		maps.DeleteFunc(h.sets[typeURL], func(name string, _ *xds.Resource) bool { return unneeded(name) })
		maps.DeleteFunc(h.absent[typeURL], func(name string, _ struct{}) bool { return unneeded(name) })
	}
}

// signingKeys returns the ids of the Passport keys that every PDP has.
func (h *held) signingKeys() []string {
	var ids []string
	for _, k := range decodeAll[*chancerypb.SigningKeys](h.set(signingKeysType)) {
		ids = append(ids, k.GetReady()...)
	}
	return ids
}

// set returns a copy of the resources of one type.
func (h *held) set(typeURL string) set {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.sets[typeURL])
}
