package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// downstream is what the one Envoy sees: its resources, as this instance has
// them, by ADS, and its secrets by SDS.
type downstream struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	book      *book
	resources map[string]*xds.Collection
	secrets   *secretService

	mu sync.Mutex
	// spoken says that the control plane has spoken in this process's life.
	// What an Envoy holds beyond the agent's resources may be newer than they
	// are, so nothing of it is removed before.
	spoken bool
	// withheld says that a removal was held back.
	withheld bool
}

var (
	_ discoveryv3.AggregatedDiscoveryServiceServer = (*downstream)(nil)
	_ xds.Source                                   = (*downstream)(nil)
)

func newDownstream(b *book, p *problems) *downstream {
	d := &downstream{book: b, resources: map[string]*xds.Collection{}, secrets: &secretService{
		secrets: &xds.Collection{}, problems: p, nacks: b.nacks, log: b.log, changed: b.touch,
	}}
	for _, typeURL := range []string{resource.ClusterType, resource.EndpointType, resource.ListenerType, resource.RouteType} {
		d.resources[typeURL] = &xds.Collection{}
	}
	return d
}

// Collection implements xds.Source.
func (d *downstream) Collection(typeURL string) (*xds.Collection, func(string) bool, error) {
	c := d.resources[typeURL]
	if c == nil {
		return nil, nil, fmt.Errorf("type %q is not served", typeURL)
	}
	return c, nil, nil
}

// DeltaAggregatedResources implements the aggregated discovery service.
func (d *downstream) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	ctx, end := context.WithCancel(stream.Context())
	defer end()
	account := d.book.open(d.withhold, end)
	defer account.close()
	return xds.Serve(ctx, stream, d, account)
}

// withhold hides from the delta server what Envoy holds and the agent does
// not, as long as the control plane has not spoken.
func (d *downstream) withhold(req *discoveryv3.DeltaDiscoveryRequest) {
	c := d.resources[req.GetTypeUrl()]
	if c == nil || len(req.GetInitialResourceVersions()) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.spoken {
		return
	}
	held := c.Versions()
	for name := range req.GetInitialResourceVersions() {
		if _, ok := held[name]; !ok {
			delete(req.GetInitialResourceVersions(), name)
			d.withheld = true
		}
	}
}

// speak tells that the agent now holds what the control plane says. A stream
// that something was withheld from ends, so that Envoy comes back for it.
func (d *downstream) speak() {
	d.mu.Lock()
	again := !d.spoken && d.withheld
	d.spoken = true
	d.mu.Unlock()
	if again {
		d.book.restart()
	}
}

// server returns the gRPC server of envoy.sock. Envoy pings every ten seconds,
// which gRPC would take for abuse.
func (d *downstream) server() *grpc.Server {
	s := grpc.NewServer(append(extauthz.ServerOptions(),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)...)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, d)
	secretv3.RegisterSecretDiscoveryServiceServer(s, d.secrets)
	return s
}

// listenForEnvoy opens a Unix socket for processes of the given users alone:
// whoever can call Check with invented attributes could have a Passport
// minted. A socket that is there is taken over, for its owner is dead: the
// agent's lock says so.
func listenForEnvoy(path string, uids ...uint32) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen for envoy: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for envoy: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for envoy: %w", err), l.Close())
	}
	return &envoyListener{UnixListener: l, uids: uids}, nil
}

// envoyListener accepts connections of some users.
type envoyListener struct {
	*net.UnixListener
	uids []uint32
}

// Accept implements net.Listener. Strangers are hung up on.
func (l *envoyListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if process, err := identity.PeerProcess(c); err == nil && slices.Contains(l.uids, process.Uid) {
			return c, nil
		}
		_ = c.Close()
	}
}
