package sidecar

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

const (
	// ackTimeout bounds the wait for Envoy between the steps of a rollout. It
	// is far above what a cluster needs to warm.
	ackTimeout = 5 * time.Second
	// probation is how long an Envoy must live with a revision that it took
	// before the revision is promoted.
	probation = 5 * time.Second
)

// rollout brings revisions to Envoy, make before break: the policy decision
// point knows the new routes and still the old ones; then clusters are added;
// when Envoy has acknowledged them, listeners and routes follow; when it holds
// the whole revision, listeners and routes that only the old one had are
// removed; and when it has lived with that, so is what requests that were
// under way could still need: clusters, endpoints and policy.
//
// A step that Envoy rejects ends the rollout there. What it took stays, what
// it had keeps working, what it rejected is taken back, and the control plane,
// which hears of the NACK, sends a revision without the culprit. A revision that
// Envoy dies of counts as rejected, and all of it is taken back.
type rollout struct {
	downstream *downstream
	book       *book
	endpoints  *endpoints
	pdp        *pdp
	held       *held
	disk       *disk
	// certificates are nil where there are none.
	certificates *certificates
	log          *slog.Logger
	next         chan *revision
	// again says that the target must be made local once more; no revision takes
	// its place.
	again     chan struct{}
	probation time.Duration

	mu sync.Mutex
	// local is where this instance differs from others.
	local envoy.Local
	// target is the newest revision, settled the last that Envoy held whole
	// while this process lives, and proven the last that an Envoy lived with.
	target, settled, proven *localRevision
}

// localRevision is a revision as this instance has it.
type localRevision struct {
	*revision
	local map[string]set
	// restored says that it comes from disk, not from the control plane.
	restored bool
	// refusals are Envoy's NACKs of it, by type. They outlive their account in
	// the book, which ends when what was rejected is taken back.
	refusals map[string]*chancerypb.TypeStatus
	// deaths is the count at which Envoy was first given it, held when the Envoy
	// of heldBy held it whole, zero while it does not. What is the same to Envoy
	// counts.
	deaths, heldBy int
	held           time.Time
	// condemned says that Envoys died of it, withdrawn that Envoy has
	// something else in its place.
	condemned, withdrawn bool
}

// policy returns the revision's one policy, or nil.
func (r *localRevision) policy() *chancerypb.Policy {
	if r != nil {
		for _, p := range decodeAll[*chancerypb.Policy](r.sets[policyType]) {
			return p
		}
	}
	return nil
}

// shared returns what is the same for all instances, or nil.
func (r *localRevision) shared() *revision {
	if r == nil {
		return nil
	}
	return r.revision
}

// servesSame reports whether another revision is nothing new to an Envoy that has
// r.
func (r *localRevision) servesSame(other *localRevision) bool {
	if r == nil {
		return false
	}
	for _, typeURL := range servedTypes {
		if !maps.Equal(r.local[typeURL].versions(), other.local[typeURL].versions()) {
			return false
		}
	}
	return true
}

// want returns the versions of some types.
func (r *localRevision) want(typeURLs ...string) versions {
	want := versions{}
	for _, typeURL := range typeURLs {
		want[typeURL] = r.local[typeURL].versions()
	}
	return want
}

// submit hands over a revision; one that was not begun yet gives way.
func (o *rollout) submit(rev *revision) {
	for {
		select {
		case o.next <- rev:
			return
		case <-o.next:
		}
	}
}

// restore serves last good state, before anything else is done; proven is the
// promoted one, or nil.
func (o *rollout) restore(rev *revision, proven *snapshot) error {
	if proven != nil && proven.revision != rev.id {
		before, err := o.fromDisk(proven)
		if err != nil {
			return err
		}
		o.mu.Lock()
		o.proven = before
		o.mu.Unlock()
	}
	target, err := o.begin(rev)
	if err != nil {
		return err
	}
	target.restored = true
	if proven != nil && proven.revision == rev.id {
		o.mu.Lock()
		o.proven = target
		o.mu.Unlock()
	}
	o.put(target, servedTypes...)
	return nil
}

// fromDisk returns a revision that is only gone back to: what is held stays.
func (o *rollout) fromDisk(s *snapshot) (*localRevision, error) {
	sets, err := s.sets()
	if err != nil {
		return nil, err
	}
	rev := newRevision(s.revision, sets, findNeeds(sets))
	local, err := localize(rev, o.place())
	return &localRevision{revision: rev, local: local, restored: true}, err
}

// run rolls out what is submitted until ctx ends.
func (o *rollout) run(ctx context.Context) error {
	o.mu.Lock()
	target := o.target
	o.mu.Unlock()
	var next *revision
	if target != nil {
		next = o.settle(ctx, target)
	}
	for ctx.Err() == nil {
		if next == nil {
			if next = o.wait(ctx); next == nil {
				return nil
			}
		}
		next = o.roll(ctx, next)
	}
	return nil
}

// wait returns what is to be rolled out next, or nil when ctx ended.
func (o *rollout) wait(ctx context.Context) *revision {
	select {
	case <-ctx.Done():
		return nil
	case <-o.again:
		return sameAgain
	case next := <-o.next:
		return next
	}
}

// roll rolls out one revision. It returns the one that overtook it, if any.
func (o *rollout) roll(ctx context.Context, rev *revision) *revision {
	if rev == sameAgain {
		return o.rollAgain(ctx)
	}
	if same := o.condemnedAgain(rev); same != nil {
		return o.settle(ctx, same) // the control plane has yet to hear of it
	}
	target, err := o.begin(rev)
	if err != nil {
		o.log.ErrorContext(ctx, "revision refused", "revision", rev.id, "err", err)
		return nil
	}
	o.disk.begin(rev)
	if o.withdraw(target) {
		o.book.restart()
	}
	o.putClusters(target.local[resource.ClusterType])
	return o.proceed(ctx, target)
}

// condemnedAgain returns the target if it was condemned and rev is the same to
// Envoy, which shall not die of it again; else nil.
func (o *rollout) condemnedAgain(rev *revision) *localRevision {
	last := o.target
	if last == nil || !last.condemned {
		return nil
	}
	if last.id == rev.id {
		return last
	}
	local, err := localize(rev, o.place())
	if err != nil {
		return nil
	}
	next := *last
	next.revision, next.local = rev, local
	if !last.withdrawn || !last.servesSame(&next) {
		return nil
	}
	o.pruneAccounts(rev)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.target = &next
	o.book.touch()
	return &next
}

// proceed goes on when Envoy has been given the target's clusters.
func (o *rollout) proceed(ctx context.Context, target *localRevision) *revision {
	if next, ok := o.await(ctx, target, resource.ClusterType); !ok {
		return next
	}
	o.put(target, resource.RouteType, resource.ListenerType)
	return o.settle(ctx, target)
}

// begin makes rev the target, and lets the policy decision point decide by it
// as well as by what Envoy may still have.
func (o *rollout) begin(rev *revision) (*localRevision, error) {
	local, err := localize(rev, o.place())
	if err != nil {
		return nil, err
	}
	target := &localRevision{revision: rev, local: local, deaths: o.book.deathCount()}
	if last := o.target; last.servesSame(target) && !last.withdrawn {
		target.held, target.heldBy = last.held, last.heldBy
		if last != o.proven { // nobody lived with it yet
			target.deaths = last.deaths
		}
	}
	before := cmp.Or(o.settled, o.target)
	if err := o.pdp.widen(before.policy(), target.policy()); err != nil {
		return nil, err
	}
	o.pruneAccounts(rev, before.shared())
	o.certificates.want(target, o.settled, o.proven)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.target = target
	o.book.touch()
	return target, nil
}

// pruneAccounts forgets the accounts that nothing decides by any more but these
// revisions, and what is gone back to.
func (o *rollout) pruneAccounts(revs ...*revision) {
	o.held.prune([]string{accountsType}, append(revs, o.settled.shared(), o.proven.shared())...)
}

// put gives Envoy a target's resources of some types, and their endpoints.
func (o *rollout) put(target *localRevision, typeURLs ...string) {
	o.endpoints.fill()
	for _, typeURL := range typeURLs {
		o.downstream.resources[typeURL].Apply(target.local[typeURL].list())
	}
}

// putClusters gives Envoy clusters, and those endpoints again that it would not
// ask for.
func (o *rollout) putClusters(clusters set) {
	served := o.downstream.resources[resource.ClusterType]
	before := served.Versions()
	changed := maps.Clone(clusters)
	maps.DeleteFunc(changed, func(name string, c *xds.Resource) bool { return before[name] == c.Version })
	asked := o.endpoints.names()
	o.endpoints.fill()
	served.Apply(clusters.list())
	o.endpoints.putAgain(slices.DeleteFunc(endpointNames(changed), func(name string) bool {
		return !slices.Contains(asked, name)
	}))
}

// await waits, not for ever, until Envoy holds the target's resources of a
// type. It reports false when the rollout shall not go on: ctx ended, or a
// newer revision is there, which it returns. A target that was withdrawn is
// held up until then.
func (o *rollout) await(ctx context.Context, target *localRevision, typeURL string) (next *revision, ok bool) {
	want := target.want(typeURL)
	timeout := time.NewTimer(ackTimeout)
	defer timeout.Stop()
	late := timeout.C
	for {
		changed := o.book.watch()
		switch standing := o.judge(target, want); {
		case target.withdrawn:
			late = nil
		case standing != waiting:
			return nil, true
		}
		select {
		case <-ctx.Done():
			return nil, false
		case <-o.again:
			return sameAgain, false
		case next := <-o.next:
			return next, false
		case <-changed:
		case <-late:
			o.log.WarnContext(ctx, "envoy does not acknowledge, going on", "timeout", ackTimeout)
			return nil, true
		}
	}
}

// settle waits until Envoy holds all of the target, removes what is left of
// the old, and promotes the target when Envoy has lived with it. It returns
// the revision that comes next, or nil when ctx ended.
//
// A request keeps the route that it came in by, and Envoy looks for its cluster
// only when it was checked, and once more for each retry. So clusters outlive
// their routes.
func (o *rollout) settle(ctx context.Context, target *localRevision) *revision {
	want := target.want(servedTypes...)
	var lived <-chan time.Time
	for {
		changed := o.book.watch()
		switch standing := o.judge(target, want); {
		case standing != settled || target.withdrawn:
			target.held, lived = time.Time{}, nil
		case lived == nil:
			o.finish(ctx, target)
			if by := o.book.streamCount(); target.held.IsZero() || target.heldBy != by {
				target.held, target.heldBy = time.Now(), by
			}
			lived = time.After(o.probation - time.Since(target.held))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-o.again:
			return sameAgain
		case next := <-o.next:
			return next
		case <-changed:
		case <-lived:
			o.retire(ctx, target)
			o.prove(target)
			lived = make(chan time.Time)
		}
	}
}

// finish removes the listeners and routes that only older revisions had.
func (o *rollout) finish(ctx context.Context, target *localRevision) {
	o.mu.Lock()
	first := o.settled != target
	o.settled = target
	o.mu.Unlock()
	for _, typeURL := range []string{resource.RouteType, resource.ListenerType} {
		o.downstream.resources[typeURL].Replace(target.local[typeURL].list())
	}
	if first {
		o.disk.acknowledge()
		o.book.touch()
		o.log.InfoContext(ctx, "revision acknowledged", "revision", target.id)
	}
	if !target.restored {
		o.downstream.speak()
	}
}

// retire removes what else only older revisions had.
func (o *rollout) retire(ctx context.Context, target *localRevision) {
	o.downstream.resources[resource.ClusterType].Replace(target.local[resource.ClusterType].list())
	if err := o.pdp.narrow(target.policy()); err != nil {
		o.log.ErrorContext(ctx, "policy refused", "err", err)
	}
	o.held.prune(namedTypes, target.revision)
	o.endpoints.prune()
	o.certificates.want(target)
}

// prove notes that Envoy lived with the target: only that makes it good enough
// to be told to the control plane, and gone back to.
func (o *rollout) prove(target *localRevision) {
	o.disk.promote()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.proven != target {
		o.proven, target.refusals = target, nil
		o.book.touch()
	}
}

// ready reports whether Envoy held a whole revision.
func (o *rollout) ready() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.settled != nil
}

// report describes how Envoy stands towards the target.
func (o *rollout) report() *chancerypb.ReportRequest {
	o.mu.Lock()
	target, settled, proven := o.target, o.settled, o.proven
	var refusals map[string]*chancerypb.TypeStatus
	if target != nil {
		refusals = maps.Clone(target.refusals)
	}
	o.mu.Unlock()
	report := &chancerypb.ReportRequest{}
	report.EnvoyVersion, report.EnvoyConnected = o.book.connected()
	if settled != nil && proven != nil {
		report.AcknowledgedRevision = proven.id
	}
	if target == nil {
		return report
	}
	report.HeldRevision = target.id
	want := target.want(servedTypes...)
	want[resource.EndpointType] = o.endpoints.served.Versions()
	report.Types = withRefusals(o.book.statuses(want), refusals)
	return report
}
