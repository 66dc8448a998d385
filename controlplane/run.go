package controlplane

import (
	"context"
	"fmt"
	"os"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/unixsocket"
	"github.com/chancery-mesh/chancery/mesh"
)

const (
	// drainTime bounds how long calls may go on while the control plane
	// stops.
	drainTime = 5 * time.Second
	// upkeepEvery is how often documents that could not be served and sockets
	// that could not be opened are tried again, and what has ended is dropped.
	upkeepEvery = 10 * time.Second
	// maxMessage bounds what an agent may send at once.
	maxMessage = 4 << 20
	// maxStreams bounds the calls on one connection; an agent has a few.
	maxStreams = 100
)

// Run serves until ctx ends, and returns nil then. It stops in order: no new
// connections, then no more streams and calls, then what they were about.
func (s *Server) Run(ctx context.Context) error {
	if err := os.MkdirAll(s.cfg.RunDir, 0o711); err != nil { //nolint:gosec // agents of another user pass through
		return fmt.Errorf("control plane: %w", err)
	}
	admin, err := unixsocket.Listen(AdminSocket(s.cfg.RunDir))
	if err != nil {
		return fmt.Errorf("control plane: %w", err)
	}
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return serveAdmin(ctx, admin, s.adminHandler()) })
	work.Go(func() error {
		config := mesh.WatchConfig{Dir: s.cfg.Documents, Options: s.documents.options, Logger: s.log}
		return mesh.Watch(ctx, config, func(docs mesh.Documents, _ *mesh.Mesh, err error) { s.documentsRead(docs, err) })
	})
	work.Go(func() error { return s.cfg.Registry.Run(ctx, s.endpoints.notify) })
	work.Go(func() error { s.endpoints.run(ctx); return nil })
	work.Go(func() error { s.endpoints.file.run(ctx); return nil })
	work.Go(func() error { s.saved.run(ctx); return nil })
	work.Go(func() error { s.keyring.run(ctx); return nil })
	work.Go(func() error { s.upkeep(ctx); return nil })
	work.Go(func() error {
		<-ctx.Done()
		s.stop()
		return nil
	})
	return work.Wait()
}

func (s *Server) newGRPC() *grpc.Server {
	server := grpc.NewServer(
		grpc.Creds(identity.Credentials()),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		// Agents ask whether the connection still is; they may.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
	)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, s)
	chancerypb.RegisterControlPlaneServer(server, s)
	return server
}

// stop ends what agents see of the control plane.
func (s *Server) stop() {
	s.sockets.close()
	s.views.end(errStopping)
	force := time.AfterFunc(drainTime, s.grpc.Stop)
	defer force.Stop()
	s.grpc.GracefulStop()
	s.sockets.serving.Wait()
}

// upkeep does what nothing else causes.
func (s *Server) upkeep(ctx context.Context) {
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.tidy()
		}
	}
}

func (s *Server) tidy() {
	s.passports.expire()
	s.proxies.forget()
	s.retry()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sockets.use(s.workloads)
}
