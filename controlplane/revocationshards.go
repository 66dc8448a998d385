package controlplane

import (
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

var revocationsType = xds.TypeURL(&chancerypb.Revocations{})

// errUnsavedRevocation says that a change is in force but not on disk.
var errUnsavedRevocation = errors.New("not on disk")

// shardDigits of an ID name its shard. Of a hundred thousand revocations, a shard
// has four hundred.
const shardDigits = 2

// revocationShards are revocations, on disk and published in parts, so that a
// change costs little however many there are. They are for one goroutine at a
// time.
type revocationShards struct {
	collection xds.Collection
	dir        string
	shards     map[string]*revocationShard
	size       int
	// sequence of the last change, and since when it is there in this process.
	sequence uint64
	since    time.Time
	// unsaved are the shards of which the disk has another state.
	unsaved map[string]bool
}

// revocationShard is one part: a file, and a resource.
type revocationShard struct {
	// Sequence grows with each change of any shard. It is at least the time in
	// milliseconds, so that it does so after a change, too, that could not be
	// written down.
	Sequence uint64 `json:"sequence"`
	// Entries by ID.
	Entries map[string]CredentialRevocation `json:"entries"`
}

// openRevocationShards reads all, and publishes them.
func openRevocationShards(dir string) (*revocationShards, error) {
	s := &revocationShards{dir: dir, shards: map[string]*revocationShard{}, since: time.Now(), unsaved: map[string]bool{}}
	if err := identity.PrivateDir(dir); err != nil {
		return s, err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return s, err
	}
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".json")
		if _, err := hex.DecodeString(name); !ok || err != nil || len(name) != shardDigits {
			continue // left over when a process was killed as it wrote
		}
		shard := s.shard(name)
		if err := readState(s.path(name), shard); err != nil {
			return s, err
		}
		s.size += len(shard.Entries)
		s.sequence = max(s.sequence, shard.Sequence)
	}
	return s, s.publish(slices.Collect(maps.Keys(s.shards)))
}

func (s *revocationShards) path(name string) string { return filepath.Join(s.dir, name+".json") }

// shard returns the one of a name.
func (s *revocationShards) shard(name string) *revocationShard {
	if s.shards[name] == nil {
		s.shards[name] = &revocationShard{Entries: map[string]CredentialRevocation{}}
	}
	return s.shards[name]
}

func shardOf(id string) string { return id[:min(len(id), shardDigits)] }

// get returns the revocation with an ID, which operators may have made up.
func (s *revocationShards) get(id string) (CredentialRevocation, bool) {
	shard := s.shards[shardOf(id)]
	if shard == nil {
		return CredentialRevocation{}, false
	}
	r, ok := shard.Entries[id]
	return r, ok
}

// put, and drop one that is there, change what [revocationShards.change] is to
// be told of.
func (s *revocationShards) put(r CredentialRevocation) {
	entries := s.shard(shardOf(r.ID)).Entries
	if _, again := entries[r.ID]; !again {
		s.size++
	}
	entries[r.ID] = r
}

func (s *revocationShards) drop(id string) {
	delete(s.shard(shardOf(id)).Entries, id)
	s.size--
}

// all goes through the revocations, in no order. They may be changed meanwhile.
func (s *revocationShards) all() iter.Seq[CredentialRevocation] {
	return func(yield func(CredentialRevocation) bool) {
		for _, shard := range s.shards {
			for _, r := range shard.Entries {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// change writes down and publishes that some changed. errUnsavedRevocation says
// that they are published alone.
func (s *revocationShards) change(ids ...string) error {
	if len(ids) == 0 {
		return nil
	}
	s.sequence = max(s.sequence+1, uint64(time.Now().UnixMilli()))
	s.since = time.Now()
	var changed []string
	for _, id := range ids {
		changed = append(changed, shardOf(id))
	}
	slices.Sort(changed)
	changed = slices.Compact(changed)
	for _, name := range changed {
		s.shard(name).Sequence = s.sequence
		s.unsaved[name] = true
	}
	return errors.Join(s.save(), s.publish(changed))
}

// save writes what is unsaved.
func (s *revocationShards) save() error {
	for _, name := range slices.Sorted(maps.Keys(s.unsaved)) {
		if err := writeState(s.path(name), s.shards[name]); err != nil {
			return fmt.Errorf("%w: %w", errUnsavedRevocation, err)
		}
		delete(s.unsaved, name)
	}
	return nil
}

// publish puts some shards into the collection, all at once: who has one of a
// sequence has all of those before.
func (s *revocationShards) publish(names []string) error {
	resources := make([]*xds.Resource, 0, len(names))
	for _, name := range names {
		shard := s.shards[name]
		m := &chancerypb.Revocations{Sequence: shard.Sequence}
		for _, id := range slices.Sorted(maps.Keys(shard.Entries)) {
			m.Entries = append(m.Entries, shard.Entries[id].message())
		}
		r, err := xds.New(name, m)
		if err != nil {
			return err
		}
		resources = append(resources, r)
	}
	s.collection.Apply(resources)
	return nil
}
