package sidecar

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/extauthz/revocation"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/atomicfile"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// revocationsFile has a life of its own beside the last good state, as trust
// has: what was revoked since an earlier revision stays so.
const revocationsFile = "revocations.pb"

// revocations keeps the newest Revocations, on disk as well. Each of them never
// goes back to an older one, nor away: entries end by themselves. It is safe for
// concurrent use.
type revocations struct {
	path string
	log  *slog.Logger
	// changed is called after each change, with what is to be decided by.
	changed func(*revocation.Index)
	// index is nil while it is not known what is revoked.
	index atomic.Pointer[revocation.Index]

	mu     sync.Mutex
	shards map[string]shard
	// refused are those that came and were not understood, with the sequence up to
	// which nothing is missing for their sake.
	refused map[string]uint64
}

// shard is one resource, as it came and decoded.
type shard struct {
	*xds.Resource
	message *chancerypb.Revocations
}

func newRevocations(path string, log *slog.Logger, changed func(*revocation.Index)) *revocations {
	return &revocations{path: path, log: log, changed: changed, shards: map[string]shard{}, refused: map[string]uint64{}}
}

// load takes over what an earlier agent left, and returns it. What is damaged
// is not used: it is not known what is revoked, then, until the control plane
// says so. An agent of an earlier version left nothing beside its last good
// state: nothing was revoked.
func (rs *revocations) load(established bool) []*xds.Resource {
	data, err := identity.ReadPrivate(rs.path)
	if errors.Is(err, fs.ErrNotExist) {
		if established {
			rs.use(&revocation.Index{})
		}
		return nil
	}
	var message discoveryv3.DeltaDiscoveryResponse
	if err == nil {
		err = proto.Unmarshal(data, &message)
	}
	var resources []*xds.Resource
	shards := map[string]shard{}
	for _, r := range message.GetResources() {
		if err == nil {
			resources = append(resources, xds.FromDelta(r))
			shards[r.GetName()], err = newShard(xds.FromDelta(r))
		}
	}
	if err != nil {
		rs.log.Error("revocations on disk not used", "path", rs.path, "err", err)
		return nil
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.shards = shards
	rs.build()
	return resources
}

// take judges resources of the control plane, and puts those to use that are
// good. The error tells of the others. It returns when what it took is in force
// and on disk; a disk that fails does not keep it from being in force.
func (rs *revocations) take(resources []*xds.Resource) error {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	before := rs.index.Load()
	refused := rs.adopt(resources)
	if index := rs.index.Load(); index != before {
		rs.keep()
		rs.log.Info("revocations changed", "sequence", index.Sequence(), "revocations", index.Len())
	}
	return refused
}

// adopt puts to use what is newer than, or new beside, what is held. The caller
// holds the lock.
func (rs *revocations) adopt(resources []*xds.Resource) error {
	var refused []error
	news := rs.index.Load() == nil // that there are none
	for _, r := range resources {
		had, held := rs.shards[r.Name]
		if held && had.Version == r.Version {
			continue
		}
		next, err := newShard(r)
		switch {
		case err != nil:
			rs.refuse(r.Name, next.message)
			refused = append(refused, err)
		case held && next.message.GetSequence() <= had.message.GetSequence():
			refused = append(refused, fmt.Errorf("revocations %q of sequence %d are not newer than %d, which are held: was the control plane restored from a backup? What was revoked since stays so until it ends, or the next change",
				r.Name, next.message.GetSequence(), had.message.GetSequence()))
		default:
			rs.shards[r.Name], news = next, true
			delete(rs.refused, r.Name)
		}
	}
	if news {
		rs.build()
	}
	return errors.Join(refused...)
}

// refuse notes what was not understood; nil is what could not even be decoded. The
// caller holds the lock.
func (rs *revocations) refuse(name string, m *chancerypb.Revocations) {
	complete := rs.index.Load().Sequence()
	if sequence := m.GetSequence(); sequence > 0 {
		complete = sequence - 1
	}
	if before, again := rs.refused[name]; again {
		complete = min(complete, before)
	}
	rs.refused[name] = complete
}

// newShard decodes a resource, all of which must be understood.
func newShard(r *xds.Resource) (shard, error) {
	message := &chancerypb.Revocations{}
	if err := r.Decode(message); err != nil {
		return shard{}, err
	}
	_, err := revocation.New(message)
	return shard{r, message}, err
}

// build makes the index of what is held, which was understood when it came.
func (rs *revocations) build() {
	messages := make([]*chancerypb.Revocations, 0, len(rs.shards))
	for _, s := range rs.shards {
		messages = append(messages, s.message)
	}
	if index, err := revocation.New(messages...); err == nil {
		rs.use(index)
	}
}

// sequence returns that up to which all changes are in force.
func (rs *revocations) sequence() uint64 {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	sequence := rs.index.Load().Sequence()
	for _, complete := range rs.refused {
		sequence = min(sequence, complete)
	}
	return sequence
}

func (rs *revocations) use(index *revocation.Index) {
	rs.index.Store(index)
	rs.changed(index)
}

// keep writes to disk.
func (rs *revocations) keep() {
	message := &discoveryv3.DeltaDiscoveryResponse{}
	for _, name := range slices.Sorted(maps.Keys(rs.shards)) {
		message.Resources = append(message.Resources, rs.shards[name].Delta())
	}
	data, err := proto.Marshal(message)
	if err == nil {
		err = atomicfile.Write(rs.path, data, 0o600)
	}
	if err != nil {
		rs.log.Error("revocations not written", "path", rs.path, "err", err)
	}
}

// revoked has the policy decision point refuse what is revoked, and the control
// plane hear of it.
func (a *Agent) revoked(index *revocation.Index) {
	a.metrics.revocations.Set(float64(index.Sequence()))
	if err := a.pdp.revokes(index); err != nil {
		a.log.Error("revocations refused by the policy decision point", "err", err)
	}
	a.book.touch()
}
