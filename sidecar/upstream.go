package sidecar

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/chancery-mesh/chancery/internal/xds"
)

// upstream is the agent's client of the control plane's delta ADS. It keeps
// held up to date, across reconnects, and tells a listener what changed.
type upstream struct {
	client   discoveryv3.AggregatedDiscoveryServiceClient
	node     *corev3.Node
	held     *held
	listener listener
	// replaced returns a channel that is closed when there is another connection
	// to open streams on, on which the stream goes on.
	replaced func(context.Context) <-chan struct{}
	log      *slog.Logger
	// delivered is the id of the revision that the listener was last told of.
	delivered string
}

// listener is told of changes, one call at a time.
type listener interface {
	// accept judges resources before they are held. An error is the NACK.
	accept(typeURL string, resources []*xds.Resource) error
	// connected tells whether the control plane answers.
	connected(bool)
	// endpointsChanged and keysChanged tell of resources that follow their
	// own pace, apart from revisions; keys are those of identity providers and
	// Passports, accounts, and which of its own a gateway may sign with.
	endpointsChanged([]*xds.Resource)
	keysChanged()
	// revised tells of a new, complete revision.
	revised(*revision)
}

// run keeps a stream open until ctx ends.
func (u *upstream) run(ctx context.Context) error {
	pause := backoff{min: 100 * time.Millisecond, max: 2 * time.Second}
	for {
		replaced := u.replaced(ctx)
		err := u.session(ctx, &pause)
		select {
		case <-replaced:
			continue
		default:
		}
		u.listener.connected(false)
		if ctx.Err() == nil {
			u.log.WarnContext(ctx, "control plane stream ended", "err", err)
		}
		if !pause.wait(ctx) {
			return nil
		}
	}
}

// session is one stream.
type session struct {
	*upstream
	stream     discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	subscribed map[string][]string
}

func (u *upstream) session(ctx context.Context, pause *backoff) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := u.client.DeltaAggregatedResources(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	s := &session{upstream: u, stream: stream, subscribed: map[string][]string{}}
	if err := s.open(); err != nil {
		return err
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		pause.reset()
		u.listener.connected(true)
		if err := s.handle(ctx, resp); err != nil {
			return err
		}
	}
}

// open subscribes to everything, and says what is held already.
func (s *session) open() error {
	for _, typeURL := range append(slices.Clone(revisedTypes), revisionType, revocationsType) {
		err := s.stream.Send(&discoveryv3.DeltaDiscoveryRequest{
			Node:                    s.node,
			TypeUrl:                 typeURL,
			ResourceNamesSubscribe:  []string{"*"},
			InitialResourceVersions: s.held.set(typeURL).versions(),
		})
		if err != nil {
			return err
		}
	}
	err := s.stream.Send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl:                 trustType,
		ResourceNamesSubscribe:  []string{trustName},
		InitialResourceVersions: s.held.set(trustType).versions(),
	})
	if err != nil {
		return err
	}
	return s.subscribe()
}

// handle takes one response: what it holds is checked, kept, told to the
// listener, and acknowledged.
func (s *session) handle(ctx context.Context, resp *discoveryv3.DeltaDiscoveryResponse) error {
	resources, err := parse(resp)
	if err == nil {
		err = s.listener.accept(resp.GetTypeUrl(), resources)
	}
	ack := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()}
	if err != nil {
		s.log.ErrorContext(ctx, "resources of the control plane refused", "type_url", resp.GetTypeUrl(), "err", err)
		ack.ErrorDetail = &statuspb.Status{Code: int32(codes.InvalidArgument), Message: err.Error()}
		return s.stream.Send(ack)
	}
	s.held.apply(resp.GetTypeUrl(), resources, resp.GetRemovedResources())
	// An ACK of keys says that they are in use: the control plane counts on it.
	s.tell(resp.GetTypeUrl(), resources)
	if err := s.stream.Send(ack); err != nil {
		return err
	}
	return s.subscribe()
}

func (s *session) tell(typeURL string, put []*xds.Resource) {
	switch typeURL {
	case resource.EndpointType:
		s.listener.endpointsChanged(put)
	case providerType, accountsType, passportKeysType, signingKeysType:
		s.listener.keysChanged()
	}
	if s.held.revisionID() == s.delivered {
		return
	}
	if rev := s.held.complete(); rev != nil {
		s.delivered = rev.id
		s.listener.revised(rev)
	}
}

// subscribe asks for the names that are needed now and were not before. A
// first request without names would ask for everything, so it is not sent.
func (s *session) subscribe() error {
	for _, typeURL := range namedTypes {
		before, now := s.subscribed[typeURL], s.held.needed(typeURL)
		req := &discoveryv3.DeltaDiscoveryRequest{
			TypeUrl:                  typeURL,
			ResourceNamesSubscribe:   without(now, before),
			ResourceNamesUnsubscribe: without(before, now),
		}
		if len(req.ResourceNamesSubscribe)+len(req.ResourceNamesUnsubscribe) == 0 {
			continue
		}
		if before == nil {
			req.InitialResourceVersions = s.held.set(typeURL).versions()
			maps.DeleteFunc(req.InitialResourceVersions, func(name, _ string) bool { return !slices.Contains(now, name) })
		}
		s.subscribed[typeURL] = append([]string{}, now...)
		if err := s.stream.Send(req); err != nil {
			return err
		}
	}
	return nil
}

// without returns the names that are not among others.
func without(names, others []string) []string {
	seen := make(map[string]struct{}, len(others))
	for _, name := range others {
		seen[name] = struct{}{}
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		_, ok := seen[name]
		return ok
	})
}
