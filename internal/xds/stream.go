package xds

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Source is what one stream may see. It is chosen by the connection's
// authenticated peer when the stream opens; what the client says of itself
// (its node) is never looked at.
type Source interface {
	// Collection returns the resources of a type and which of their names the
	// stream may have (nil: all), or an error for a type that it has no
	// business asking for, which ends the stream. It is called for each
	// request.
	Collection(typeURL string) (c *Collection, allow func(name string) bool, err error)
}

// Observer sees both directions of one stream. Its methods are called one at
// a time.
type Observer interface {
	// Requested sees a request: a subscription, an ACK, or a NACK. An error
	// ends the stream. It is the only place that sees the client's node, which
	// is not kept.
	Requested(*discoveryv3.DeltaDiscoveryRequest) error
	// Responding sees a response just before it is sent.
	Responding(*discoveryv3.DeltaDiscoveryResponse)
}

// Serve serves one delta ADS stream until the client or ctx ends it.
func Serve(ctx context.Context, stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer, source Source, observer Observer) error {
	server := delta.NewServer(ctx, watcher{source}, callbacks{observer})
	return server.DeltaStreamHandler(stream, resource.AnyType)
}

// maxNames bounds what one stream may subscribe to, or say that it holds, of
// one type.
const maxNames = 10_000

// maxName bounds a name, or a version, in bytes: they are kept for as long as
// the stream is open.
const maxName = 512

// watcher adapts a Source to go-control-plane.
type watcher struct{ source Source }

func (w watcher) CreateDeltaWatch(req *cache.DeltaRequest, sub cache.Subscription, out chan cache.DeltaResponse) (func(), error) {
	if max(len(sub.SubscribedResources()), len(sub.ReturnedResources())) > maxNames {
		return nil, status.Errorf(codes.ResourceExhausted, "more than %d names of one type", maxNames)
	}
	c, allow, err := w.source.Collection(req.GetTypeUrl())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return c.Watch(req, sub, allow, out), nil
}

func (watcher) CreateWatch(*cache.Request, cache.Subscription, chan cache.Response) (func(), error) {
	return nil, fmt.Errorf("state-of-the-world xDS is not served")
}

// callbacks adapts an Observer to go-control-plane.
type callbacks struct{ observer Observer }

func (callbacks) OnDeltaStreamOpen(context.Context, int64, string) error { return nil }

func (callbacks) OnDeltaStreamClosed(int64, *corev3.Node) {}

func (c callbacks) OnStreamDeltaRequest(_ int64, req *discoveryv3.DeltaDiscoveryRequest) error {
	err := cmp.Or(c.observer.Requested(req), bounded(req))
	req.Node = nil
	return err
}

// bounded refuses names that no resource has.
func bounded(req *discoveryv3.DeltaDiscoveryRequest) error {
	long := func(s string) bool { return len(s) > maxName }
	for name, version := range req.GetInitialResourceVersions() {
		if long(name) || long(version) {
			return errLongName
		}
	}
	if slices.ContainsFunc(req.GetResourceNamesSubscribe(), long) || slices.ContainsFunc(req.GetResourceNamesUnsubscribe(), long) {
		return errLongName
	}
	return nil
}

var errLongName = status.Errorf(codes.InvalidArgument, "a name or version of more than %d bytes", maxName)

func (c callbacks) OnStreamDeltaResponse(_ int64, _ *discoveryv3.DeltaDiscoveryRequest, resp *discoveryv3.DeltaDiscoveryResponse) {
	c.observer.Responding(resp)
}
