package sidecar

import (
	"fmt"
	"maps"
	"slices"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// fatal is how many Envoys must die of a revision for it to be refused: one may
// have died of anything.
const fatal = 2

// judge returns how Envoy stands towards what is wanted of the target, and
// takes back what it rejected or dies of. Without an earlier revision that
// would suffer from going on, nothing is taken back: a part is better than
// nothing. Nor is what is nothing new to Envoy, which is not to blame.
func (o *rollout) judge(target *localRevision, want versions) standing {
	standing := o.book.standing(want)
	switch {
	case !o.proven.servesSame(target) && o.book.deathCount()-target.deaths >= fatal:
		o.condemn(target)
	case standing == refused && o.settled != nil && !o.settled.servesSame(target):
		o.takeBack(target)
	}
	return standing
}

// condemn goes all the way back to the revision that Envoy lived with, and
// tells of the target as if Envoy had rejected it.
func (o *rollout) condemn(target *localRevision) {
	if target.condemned {
		return
	}
	target.condemned, target.withdrawn = true, o.proven != nil
	reason := fmt.Sprintf("envoy died twice within %v of taking this revision", o.probation)
	o.log.Error("revision refused", "revision", target.id, "err", reason)
	o.refuse(target, []*chancerypb.TypeStatus{{
		TypeUrl:  resource.ListenerType,
		State:    chancerypb.TypeStatus_NACKED,
		Error:    reason,
		Rejected: slices.Sorted(maps.Keys(target.local[resource.ListenerType])),
	}})
	if o.proven != nil {
		o.goBack()
	}
	o.book.touch()
}

// goBack serves the proven revision and nothing else, to an Envoy that starts
// from nothing.
func (o *rollout) goBack() {
	if err := o.pdp.narrow(o.proven.policy()); err != nil {
		o.log.Error("policy refused", "err", err)
	}
	o.endpoints.fill()
	for _, typeURL := range servedTypes {
		o.downstream.resources[typeURL].Replace(o.proven.local[typeURL].list())
	}
	o.disk.retreat(o.proven.revision, promoted)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settled = o.proven
}

// takeBack puts what Envoy holds in the place of what it rejected, so that an
// Envoy which starts now gets that. An answer of Envoy can still be on its way,
// so this may be called again.
func (o *rollout) takeBack(target *localRevision) {
	nacks := o.book.statuses(target.want(servedTypes...))
	o.refuse(target, slices.DeleteFunc(nacks, func(s *chancerypb.TypeStatus) bool {
		return s.GetState() != chancerypb.TypeStatus_NACKED
	}))
	o.withdraw(o.settled)
	if target.withdrawn {
		return
	}
	target.withdrawn = true
	// What Envoy holds decides again; it may have taken some of the target.
	if err := o.pdp.widen(target.policy(), o.settled.policy()); err != nil {
		o.log.Error("policy not taken back", "revision", target.id, "err", err)
	}
	generation := acknowledged
	if o.settled == o.proven {
		generation = promoted
	}
	o.disk.retreat(o.settled.revision, generation)
}

// refuse notes NACKs of the target, to be reported for as long as it is the
// target.
func (o *rollout) refuse(target *localRevision, nacks []*chancerypb.TypeStatus) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if target.refusals == nil {
		target.refusals = map[string]*chancerypb.TypeStatus{}
	}
	for _, s := range nacks {
		target.refusals[s.GetTypeUrl()] = s
	}
}

// withdraw takes back what Envoy rejected and rev does not have: it would be
// sent, and rejected, again. It reports whether something remains that came in
// a rejected response: of that, only Envoy knows what it really holds.
func (o *rollout) withdraw(rev *localRevision) (remains bool) {
	for typeURL, refused := range o.book.refusals() {
		for name, version := range refused {
			switch r := rev.local[typeURL][name]; {
			case r != nil && r.Version == version:
				remains = true
			case o.settled != nil && o.settled.local[typeURL][name] != nil:
				o.downstream.resources[typeURL].Apply([]*xds.Resource{o.settled.local[typeURL][name]})
			case o.downstream.resources[typeURL] != nil && typeURL != resource.EndpointType:
				o.downstream.resources[typeURL].Apply(nil, name)
			}
		}
	}
	return remains
}

// withRefusals returns statuses in which the types that were refused say so.
func withRefusals(statuses []*chancerypb.TypeStatus, refusals map[string]*chancerypb.TypeStatus) []*chancerypb.TypeStatus {
	for _, s := range statuses {
		if r := refusals[s.GetTypeUrl()]; r != nil {
			s.State, s.Error, s.Rejected = r.GetState(), r.GetError(), r.GetRejected()
			delete(refusals, s.GetTypeUrl())
		}
	}
	return slices.AppendSeq(statuses, maps.Values(refusals)) // Envoy is away
}
