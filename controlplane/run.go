package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/unixsocket"
	"github.com/chancery-mesh/chancery/mesh"
)

const (
	// drainTime bounds how long calls may go on while the control plane
	// stops.
	drainTime = 5 * time.Second
	// upkeepEvery is how often documents that could not be served are tried
	// again, and what has ended is dropped.
	upkeepEvery = 10 * time.Second
	// maxMessage bounds what an agent may send at once.
	maxMessage = 4 << 20
	// maxStreams bounds the calls on one connection; an agent has a few.
	maxStreams = 16
	// connectTime bounds what comes before the first call.
	connectTime = 20 * time.Second
)

// Run serves until ctx ends, and returns nil then. It stops in order: no new
// connections, then no more streams and calls, then what they were about.
func (s *Server) Run(ctx context.Context) error {
	if err := openRunDir(s.cfg.RunDir); err != nil {
		return fmt.Errorf("control plane: run directory: %w", err)
	}
	admin, err := unixsocket.Listen(AdminSocket(s.cfg.RunDir))
	if err != nil {
		return fmt.Errorf("control plane: %w", err)
	}
	agents, err := s.listen(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("control plane: %w", err), admin.Close())
	}
	work, ctx := errgroup.WithContext(ctx)
	ready := make(chan struct{})
	work.Go(func() error { s.followTrust(ctx, sync.OnceFunc(func() { close(ready) })); return nil })
	work.Go(func() error { return s.serveAgents(ctx, agents, ready) })
	work.Go(func() error { return serveAdmin(ctx, admin, s.adminHandler()) })
	work.Go(func() error {
		config := mesh.WatchConfig{Dir: s.cfg.Documents, Options: s.documents.options, Logger: s.log}
		return mesh.Watch(ctx, config, func(docs mesh.Documents, _ *mesh.Mesh, err error) { s.documentsRead(docs, err) })
	})
	work.Go(func() error { return s.cfg.Registry.Run(ctx, s.endpoints.notify) })
	work.Go(func() error { s.endpoints.run(ctx); return nil })
	work.Go(func() error { s.endpoints.file.run(ctx); return nil })
	work.Go(func() error { s.saved.run(ctx); return nil })
	work.Go(func() error { return s.providers.Run(ctx) })
	work.Go(func() error { s.passports.run(ctx); return nil })
	work.Go(func() error { s.upkeep(ctx); return nil })
	work.Go(func() error { s.rotation.run(ctx, s.authorities); return nil })
	work.Go(func() error {
		<-ctx.Done()
		s.stop()
		return nil
	})
	return errors.Join(work.Wait(), s.closeCA(), s.audit.Close())
}

// listen opens the address that agents connect to.
func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return nil, err
	}
	address := l.Addr()
	s.address.Store(&address)
	return l, nil
}

// Addr returns where agents connect; nil before there is a listener.
func (s *Server) Addr() net.Addr {
	if address := s.address.Load(); address != nil {
		return *address
	}
	return nil
}

// serveAgents serves agents as soon as the control plane can say who it is.
// Until then, connections wait.
func (s *Server) serveAgents(ctx context.Context, l net.Listener, ready <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return l.Close()
	case <-ready:
	}
	if err := s.grpc.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("control plane: serve agents: %w", err)
	}
	return nil
}

func (s *Server) newGRPC() *grpc.Server {
	server := grpc.NewServer(
		grpc.Creds(s.door),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(connectTime),
		grpc.UnaryInterceptor(admitCall),
		grpc.StreamInterceptor(admitStream),
		// Agents ask whether the connection still is; they may. So does the
		// control plane: a host that went away frees what it had.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 15 * time.Second}),
		grpc.WaitForHandlers(true),
	)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, s)
	chancerypb.RegisterControlPlaneServer(server, s)
	chancerypb.RegisterAttestationServer(server, s)
	return server
}

// stop ends what agents see of the control plane.
func (s *Server) stop() {
	s.door.close()
	s.views.end(errStopping)
	force := time.AfterFunc(drainTime, s.grpc.Stop)
	defer force.Stop()
	s.grpc.GracefulStop()
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
	s.enrollments.forget()
	s.renewals.forget()
	s.attempts.forget()
	s.door.addresses.forget()
	if authority, _ := s.authority(); authority != nil {
		if err := authority.Expire(); err != nil {
			s.log.Error("what has ended not dropped", "err", err)
		}
	}
	s.revocations.tidy()
	s.proxies.forget(s.live())
	s.retry()
}
