package controlplane

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/chancery-mesh/chancery/identity"
)

// sockets are where agents connect, one for each workload. They come and go
// with the documents.
type sockets struct {
	listen func(identity.ID) (net.Listener, error)
	// serve returns when the listener is closed.
	serve func(net.Listener) error
	log   *slog.Logger

	serving sync.WaitGroup
	mu      sync.Mutex
	open    map[identity.ID]net.Listener
	failed  map[identity.ID]error
	closed  bool
}

func newSockets(log *slog.Logger, serve func(net.Listener) error, listen func(identity.ID) (net.Listener, error)) *sockets {
	return &sockets{log: log, serve: serve, listen: listen, open: map[identity.ID]net.Listener{}}
}

// use opens exactly the sockets of these workloads. One that cannot be opened
// keeps no other from it; it is tried again with the next call.
func (s *sockets) use(ids []identity.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := map[identity.ID]bool{}
	for _, id := range ids {
		used[id] = true
	}
	for id, l := range s.open {
		if !used[id] {
			s.shut(id, l)
		}
	}
	failed := map[identity.ID]error{}
	for _, id := range ids {
		if s.open[id] != nil || s.closed {
			continue
		}
		l, err := s.listen(id)
		if err != nil {
			failed[id] = err
			if s.failed[id] == nil {
				s.log.Error("socket not opened", "workload", id.String(), "err", err)
			}
			continue
		}
		s.open[id] = l
		s.serving.Go(func() {
			if err := s.serve(l); err != nil && !errors.Is(err, net.ErrClosed) {
				s.log.Error("socket not served", "workload", id.String(), "err", err)
			}
		})
	}
	s.failed = failed
}

// shut closes one socket. The caller holds the lock.
func (s *sockets) shut(id identity.ID, l net.Listener) {
	if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		s.log.Warn("socket not closed", "workload", id.String(), "err", err)
	}
	delete(s.open, id)
}

// close closes all sockets for good. Connections stay.
func (s *sockets) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for id, l := range s.open {
		s.shut(id, l)
	}
}

// ready reports whether all sockets are open.
func (s *sockets) ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, id := range slices.SortedFunc(maps.Keys(s.failed), compareIDs) {
		errs = append(errs, fmt.Errorf("socket of %s: %w", id, s.failed[id]))
	}
	return errors.Join(errs...)
}
