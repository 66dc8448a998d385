package controlplane

import (
	"slices"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

const (
	// maxVersions bounds the versions of a gateway's keys that an answer may
	// speak of.
	maxVersions = 16
	// settleTime is how long after its start the control plane waits for PDPs
	// to come back.
	settleTime = 10 * time.Second
	// awayTime is how long a PDP whose stream has ended is waited for.
	awayTime = 10 * time.Minute
)

// readiness tells gateways which of their keys every PDP has that takes their
// Passports: they sign with no others. A PDP counts from when it asks for the
// keys of a gateway. While it is away it still counts, unless the agent has no
// other key. One that does not answer holds a key up for a quarter of its life,
// and no longer. The lock of passportKeys guards all of it.
type readiness struct {
	signing xds.Collection
	started time.Time
	// takers are the PDPs that take the Passports of a gateway.
	takers map[string]map[*taker]struct{}
	// versions are the last ones that were published of a gateway's keys.
	versions map[string][]keysVersion
	// lacking are the PDPs that do not have a key yet, by the id of each that
	// is not ready.
	lacking map[string]map[*taker]struct{}
}

// taker is a PDP that takes Passports, for as long as one stream.
type taker struct {
	id      identity.ID
	lineage string
	// left is when its stream ended.
	left time.Time
}

// keysVersion says which keys a version of a resource has.
type keysVersion struct {
	version string
	ids     []string
}

func newReadiness() readiness {
	return readiness{
		started:  time.Now(),
		takers:   map[string]map[*taker]struct{}{},
		versions: map[string][]keysVersion{},
		lacking:  map[string]map[*taker]struct{}{},
	}
}

// published notes what is published of a gateway from now on; fresh are those
// of its keys that are not ready.
func (r *readiness) published(gateway, version string, ids, fresh []string) {
	versions := slices.DeleteFunc(r.versions[gateway], func(v keysVersion) bool { return v.version == version })
	versions = append(versions, keysVersion{version, ids})
	r.versions[gateway] = versions[max(0, len(versions)-maxVersions):]
	for _, id := range fresh {
		if r.lacking[id] == nil {
			r.lacking[id] = map[*taker]struct{}{}
			for t := range r.takers[gateway] {
				r.lacking[id][t] = struct{}{}
			}
		}
	}
}

// held returns the keys that a version has.
func (r *readiness) held(gateway, version string) []string {
	for _, v := range r.versions[gateway] {
		if v.version == version {
			return v.ids
		}
	}
	return nil
}

// forget drops the PDPs that do not come back.
func (r *readiness) forget(now time.Time) {
	for _, takers := range r.takers {
		for t := range takers {
			if !t.left.IsZero() && now.Sub(t.left) > awayTime {
				r.drop(t)
			}
		}
	}
}

func (r *readiness) drop(t *taker) {
	for _, takers := range r.takers {
		delete(takers, t)
	}
	for _, takers := range r.lacking {
		delete(takers, t)
	}
}

// takes notes whose Passports the PDP of a stream takes, as far as its view says
// so.
func (str *stream) takes(req *discoveryv3.DeltaDiscoveryRequest) {
	allowed := func(names []string) (in []string) {
		for _, name := range names {
			if str.view.may(passportKeysType, name) {
				in = append(in, name)
			}
		}
		return in
	}
	if str.taker == nil {
		str.taker = &taker{id: str.id, lineage: str.lineage}
	}
	if names := allowed(req.GetResourceNamesSubscribe()); len(names) > 0 {
		str.server.passports.asked(str.taker, names, req.GetInitialResourceVersions())
	}
	if names := req.GetResourceNamesUnsubscribe(); len(names) > 0 {
		str.server.passports.dropped(str.taker, names)
	}
}

// asked notes that a PDP asks for the keys of gateways, some of which it holds
// in a version.
func (pk *passportKeys) asked(t *taker, gateways []string, versions map[string]string) {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	pk.succeed(t)
	for _, gateway := range gateways {
		if pk.takers[gateway] == nil {
			pk.takers[gateway] = map[*taker]struct{}{}
		}
		pk.takers[gateway][t] = struct{}{}
		held := pk.held(gateway, versions[gateway])
		for _, e := range pk.endorsed[gateway] {
			if takers := pk.lacking[e.ID]; takers != nil && !slices.Contains(held, e.ID) {
				takers[t] = struct{}{}
			}
		}
	}
}

// succeed makes t take the place of one that is away and was the same PDP.
func (r *readiness) succeed(t *taker) {
	for _, takers := range r.takers {
		for other := range takers {
			if other != t && !other.left.IsZero() && other.isSame(t) {
				r.drop(other)
				return
			}
		}
	}
}

// dropped notes that a PDP no longer wants the keys of gateways.
func (pk *passportKeys) dropped(t *taker, gateways []string) {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	for _, gateway := range gateways {
		delete(pk.takers[gateway], t)
		for _, e := range pk.endorsed[gateway] {
			delete(pk.lacking[e.ID], t)
		}
		pk.settle(gateway)
	}
}

// acknowledged notes that a PDP has the keys of gateways in these versions.
func (pk *passportKeys) acknowledged(t *taker, versions map[string]string) {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	for gateway, version := range versions {
		for _, id := range pk.held(gateway, version) {
			delete(pk.lacking[id], t)
		}
		pk.settle(gateway)
	}
}

// left notes that the stream of a PDP has ended. Where another of the same PDP is
// there already, since agents connect anew before they leave, nobody is away.
func (pk *passportKeys) left(t *taker) {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	t.left = time.Now()
	for gateway, takers := range pk.takers {
		if _, ok := takers[t]; !ok {
			continue
		}
		for other := range takers {
			if other.left.IsZero() && other.isSame(t) {
				pk.drop(t)
				break
			}
		}
		pk.settle(gateway)
	}
}

// isSame reports whether two are of the same PDP, as far as anybody can tell.
func (t *taker) isSame(other *taker) bool { return t.id == other.id && t.lineage == other.lineage }

// settle finds the keys of a gateway that have become ready. The caller holds
// the lock.
func (pk *passportKeys) settle(gateway string) {
	keys, now := pk.endorsed[gateway], time.Now()
	changed := false
	for i, e := range keys {
		if pk.lacking[e.ID] != nil && pk.isReady(keys, e, now) {
			keys[i].Ready, pk.unsaved, changed = true, true, true
			delete(pk.lacking, e.ID)
		}
	}
	if changed {
		pk.tell(gateway)
	}
}

// tell tells a gateway which of its keys are ready. The caller holds the lock.
func (pk *passportKeys) tell(gateway string) {
	if _, known := pk.grants[gateway]; !known {
		return
	}
	ready := []string{}
	for _, e := range pk.endorsed[gateway] {
		if e.Ready && e.good() {
			ready = append(ready, e.ID)
		}
	}
	slices.Sort(ready)
	r, err := xds.New(gateway, &chancerypb.SigningKeys{Ready: ready})
	if err != nil {
		pk.log.Error("signing keys not encoded", "gateway", gateway, "err", err)
		return
	}
	pk.signing.Apply([]*xds.Resource{r})
}

func (pk *passportKeys) isReady(keys []endorsement, e endorsement, now time.Time) bool {
	if now.Sub(e.First) >= e.life()/4 {
		if missing := len(pk.lacking[e.ID]); missing > 0 {
			pk.log.Error("passport key is used before every PDP has it", "kid", e.ID, "missing", missing)
		}
		return true
	}
	first := !slices.ContainsFunc(keys, func(k endorsement) bool {
		return k.Lineage == e.Lineage && k.Ready && k.good()
	})
	if !first && now.Sub(pk.started) < settleTime {
		return false
	}
	for t := range pk.lacking[e.ID] {
		if t.left.IsZero() || !first {
			return false
		}
	}
	return true
}
