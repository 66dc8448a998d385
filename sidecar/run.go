package sidecar

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/atomicfile"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// Run serves Envoy until ctx ends. Then it drains and ends an Envoy that it
// supervises, and returns nil. It can be called once.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.run(ctx); err != nil {
		return fmt.Errorf("agent of %s: %w", a.config.Identity, err)
	}
	return nil
}

func (a *Agent) run(ctx context.Context) error {
	lock, err := a.openStateDir()
	if err != nil {
		return err
	}
	defer lock.Close()
	disk, err := a.restore()
	if err != nil {
		return err
	}
	finish, err := a.keepDecisions()
	if err != nil {
		return err
	}
	defer finish()
	conn := a.connection()
	defer conn.close()
	listener, err := listenForEnvoy(a.config.path(envoySocket), uint32(os.Geteuid()), 0)
	if err != nil {
		return err
	}
	server := a.downstream.server()
	a.pdp.server.Register(server)

	// What Envoy asks the agent for is there until Envoy is drained.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, serving := errgroup.WithContext(serving)
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, grpc.ErrServerStopped) {
			return err
		}
		return nil // stopped before it began
	})
	group.Go(func() error {
		<-serving.Done()
		server.Stop()
		return nil
	})
	for _, part := range a.parts(conn, disk) {
		group.Go(func() error { return part(serving) })
	}
	group.Go(func() error {
		defer stop()
		return a.supervise(ctx, serving)
	})
	return group.Wait()
}

// parts returns what runs beside the server for Envoy.
func (a *Agent) parts(conn *connection, d *disk) []func(context.Context) error {
	client := chancerypb.NewControlPlaneClient(conn)
	a.credentials.client = client
	a.credentials.connect = conn.renew
	stream := &upstream{
		client:   discoveryv3.NewAggregatedDiscoveryServiceClient(conn),
		node:     &corev3.Node{Id: a.config.Instance},
		held:     a.held,
		listener: &changes{agent: a, disk: d},
		replaced: conn.replaced,
		log:      a.log,
	}
	reports := &reporter{client: client, book: a.book, describe: a.describe, heard: a.heard, every: a.pdp.contactEvery, log: a.log}
	return []func(context.Context) error{
		stream.run, a.rollout.run, d.run, a.credentials.run, a.credentials.watchExpiry,
		reports.run, a.serveCommands, a.certificates.run,
		a.serveWorkloadAPI, a.followIdentity,
	}
}

// supervise supervises Envoy, if there is one to supervise, until ctx ends or
// serving has failed.
func (a *Agent) supervise(ctx, serving context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(serving, cancel)()
	if len(a.config.EnvoyCommand) == 0 {
		<-ctx.Done()
		return nil
	}
	s := &supervisor{
		command:   a.config.EnvoyCommand,
		bootstrap: a.config.path(bootstrapFile),
		pidfile:   a.config.path(pidFile),
		admin:     newAdmin(a.config.path(adminSocket)),
		drainTime: a.config.DrainTime,
		log:       a.log,
		starts:    a.metrics.starts,
		died:      a.book.died,
		obtained:  a.envoyObtained,
	}
	return s.run(ctx)
}

// openStateDir makes the state directory ready, and this agent its only user.
func (a *Agent) openStateDir() (lock *os.File, err error) {
	if err := identity.PrivateDir(a.config.StateDir); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	lock, err = os.OpenFile(a.config.path(lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("state directory %q: another agent uses it: %w", a.config.StateDir, err)
	}
	text, err := a.config.Bootstrap()
	if err == nil {
		err = atomicfile.Write(a.config.path(bootstrapFile), text, 0o600)
	}
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return lock, nil
}

// restore takes over what an earlier agent left: credentials, and the last
// good state.
func (a *Agent) restore() (*disk, error) {
	if err := a.credentials.load(); err != nil {
		return nil, err
	}
	if a.credentials.SVID() == nil && a.config.Join.isEmpty() {
		return nil, fmt.Errorf("no certificate in %q, and %w", a.config.StateDir, errNoProof)
	}
	if a.credentials.Trust() != nil {
		a.trustChanged()
	}
	files, err := openLastGood(a.config.StateDir, a.log)
	if err != nil {
		return nil, err
	}
	d := newDisk(files, a.held, a.log)
	a.rollout.disk = d
	s, proven := files.load()
	a.held.apply(revocationsType, a.revocations.load(s != nil), nil)
	a.contact.load()
	if s == nil {
		return d, nil
	}
	rev, err := a.held.restore(s)
	if err == nil {
		err = a.rollout.restore(rev, proven)
	}
	if err != nil {
		a.log.Error("last good state not served", "revision", s.revision, "err", err)
		return d, nil
	}
	d.resume(rev)
	a.log.Info("last good state served", "revision", rev.id)
	return d, nil
}

// connection returns the one to the control plane, which is not open yet.
func (a *Agent) connection() *connection {
	return newConnection(a.config.ControlPlane, &watchedCredentials{
		TransportCredentials: identity.ClientCredentials(a.credentials),
		failed:               a.credentials.handshake,
	})
}

// changes passes on what the control plane says. It implements listener.
type changes struct {
	agent *Agent
	disk  *disk
	up    bool
}

var _ listener = (*changes)(nil)

func (c *changes) accept(typeURL string, resources []*xds.Resource) error {
	switch typeURL {
	case trustType:
		return c.agent.takeTrust(resources)
	case revocationsType:
		return c.agent.revocations.take(resources)
	}
	return c.agent.pdp.judge(resources)
}

func (c *changes) connected(up bool) {
	if up == c.up {
		return
	}
	c.up = up
	if up {
		c.agent.credentials.welcomed()
	}
	c.agent.metrics.controlPlane.Set(map[bool]float64{true: 1}[up])
	c.agent.controlPlane.Store(up)
	c.agent.book.touch()
}

func (c *changes) endpointsChanged(put []*xds.Resource) {
	c.agent.endpoints.put(put)
	c.disk.changed()
}

func (c *changes) keysChanged() {
	if err := c.agent.pdp.refresh(); err != nil {
		c.agent.log.Error("keys refused", "err", err)
	}
	if err := c.agent.credentials.passports.readied(c.agent.held.signingKeys()); err != nil {
		c.agent.log.Error("passport keys not saved", "err", err)
	}
	c.disk.changed()
}

func (c *changes) revised(rev *revision) { c.agent.rollout.submit(rev) }
