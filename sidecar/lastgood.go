package sidecar

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/atomicfile"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// The generations of last good state. A revision is written as pending before
// Envoy gets it, becomes acknowledged when Envoy took all of it, and promoted
// when Envoy then lived on. What is merely pending is trusted at a start only
// when there is nothing else.
const (
	pending      = "pending"
	acknowledged = "acknowledged"
	promoted     = "promoted"
)

// format is the first line of a generation's file. A counter that only grows
// follows, then the resources, then a MAC of all of it.
const format = "chancery last good state 1\n"

// lastGood keeps the last good state on disk, so that an Envoy which restarts
// while the control plane is away finds its configuration. The files hold no
// secrets. Their MAC tells a file that this agent wrote from one that was
// damaged or put there.
type lastGood struct {
	dir     string
	log     *slog.Logger
	key     []byte
	counter uint64
	// current is the generation that the live revision is in; empty for none.
	current string
}

// snapshot is one state as a file holds it.
type snapshot struct {
	revision  string
	resources []*xds.Resource
	counter   uint64
}

func openLastGood(dir string, log *slog.Logger) (*lastGood, error) {
	l := &lastGood{dir: dir, log: log}
	path := l.path("key")
	key, err := identity.ReadPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, sha256.Size)
		rand.Read(key)
		err = atomicfile.Write(path, key, 0o600)
	}
	if err == nil && len(key) != sha256.Size {
		err = fmt.Errorf("read %q: not a key of %d bytes", path, sha256.Size)
	}
	if err != nil {
		return nil, fmt.Errorf("key of the last good state: %w", err)
	}
	l.key = key
	return l, nil
}

// load returns the best state on disk, or nil, and the promoted one, or nil, to
// go back to. A file that cannot be trusted is passed over, loudly. Who is let in
// no more is so by whatever was written last.
func (l *lastGood) load() (best, proven *snapshot) {
	read := map[string]*snapshot{}
	var newest *snapshot
	for _, generation := range []string{pending, acknowledged, promoted} {
		s, err := l.read(generation)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				l.log.Error("last good state refused", "generation", generation, "err", err)
			}
			continue
		}
		read[generation] = s
		if newest == nil || s.counter > newest.counter {
			newest = s
		}
		l.counter = max(l.counter, s.counter)
	}
	a, p := read[acknowledged], read[promoted]
	switch {
	case a != nil && p != nil && a.counter < p.counter:
		l.log.Error("last good state refused", "generation", acknowledged, "err", "it is older than the promoted one")
		l.current = promoted
	case a != nil:
		l.current = acknowledged
	case p != nil:
		l.current = promoted
	case read[pending] != nil:
		l.current = pending
	default:
		return nil, nil
	}
	best = read[l.current]
	best.takeAccounts(newest)
	return best, p
}

// takeAccounts takes over the accounts of now.
func (s *snapshot) takeAccounts(newer *snapshot) {
	if s == newer {
		return
	}
	ofNow := func(r *xds.Resource) bool { return isOfNow(r.TypeURL, r.Name) }
	s.resources = slices.DeleteFunc(s.resources, ofNow)
	for _, r := range newer.resources {
		if ofNow(r) {
			s.resources = append(s.resources, r)
		}
	}
}

// begin writes a revision that Envoy is about to get. Envoy does not wait for
// the disk: the file is there for the next agent if this one dies, and if the
// power goes, so does Envoy. Acknowledging it brings it to the disk.
func (l *lastGood) begin(s *snapshot) error {
	l.current = pending
	return l.write(pending, s)
}

// update writes what changed within the live revision.
func (l *lastGood) update(s *snapshot) error {
	if l.current == "" {
		return nil
	}
	return l.write(l.current, s)
}

// acknowledge records that Envoy took all of the pending revision.
func (l *lastGood) acknowledge() error { return l.advance(pending, acknowledged) }

// promote records that Envoy lived on with the acknowledged revision.
func (l *lastGood) promote() error { return l.advance(acknowledged, promoted) }

func (l *lastGood) advance(from, to string) error {
	if l.current != from {
		return nil
	}
	if err := atomicfile.Rename(l.path(from), l.path(to)); err != nil {
		return fmt.Errorf("last good state: %w", err)
	}
	l.current = to
	return nil
}

// retreat makes the revision of an earlier generation live again and forgets
// later ones: they were refused.
func (l *lastGood) retreat(to string) error {
	l.current = to
	for _, generation := range []string{pending, acknowledged} {
		if generation == to {
			break
		}
		if err := os.Remove(l.path(generation)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("last good state: %w", err)
		}
	}
	return nil
}

func (l *lastGood) path(name string) string { return filepath.Join(l.dir, "lastgood."+name) }

func (l *lastGood) write(generation string, s *snapshot) error {
	l.counter++
	message := &discoveryv3.DeltaDiscoveryResponse{SystemVersionInfo: s.revision}
	for _, r := range s.resources {
		message.Resources = append(message.Resources, r.Delta())
	}
	b := binary.BigEndian.AppendUint64([]byte(format), l.counter)
	b, err := proto.MarshalOptions{}.MarshalAppend(b, message)
	if err != nil {
		return fmt.Errorf("last good state: %w", err)
	}
	put := atomicfile.Write
	if generation == pending {
		put = atomicfile.Put
	}
	return put(l.path(generation), append(b, l.mac(b)...), 0o600)
}

func (l *lastGood) read(generation string) (*snapshot, error) {
	b, err := os.ReadFile(l.path(generation))
	if err != nil {
		return nil, err
	}
	head := len(format) + 8
	body := len(b) - sha256.Size
	if body < head || !hmac.Equal(b[body:], l.mac(b[:body])) || string(b[:len(format)]) != format {
		return nil, errors.New("damaged, or not written by this agent")
	}
	var message discoveryv3.DeltaDiscoveryResponse
	if err := proto.Unmarshal(b[head:body], &message); err != nil {
		return nil, err
	}
	s := &snapshot{
		revision: message.GetSystemVersionInfo(),
		counter:  binary.BigEndian.Uint64(b[len(format):head]),
	}
	for _, r := range message.GetResources() {
		s.resources = append(s.resources, xds.FromDelta(r))
	}
	return s, nil
}

// mac does not cover the generation: files change theirs by a rename, which is
// what makes that atomic.
func (l *lastGood) mac(b []byte) []byte {
	h := hmac.New(sha256.New, l.key)
	h.Write(b)
	return h.Sum(nil)
}
