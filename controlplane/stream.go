package controlplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// Why the control plane ends a stream.
var (
	errRemoved  = errors.New("no document speaks of this workload")
	errMoved    = errors.New("there is a newer revision: connect again")
	errStopping = errors.New("control plane is stopping")
)

// statusOf is what a client is told when its stream ends, or its call fails.
func statusOf(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errRemoved):
		return status.Error(codes.PermissionDenied, errRemoved.Error())
	case errors.Is(err, errMoved), errors.Is(err, errStopping):
		return status.Error(codes.Unavailable, err.Error())
	default:
		return err
	}
}

// errTooManyStreams is temporary.
var errTooManyStreams = status.Error(codes.ResourceExhausted, "too many streams: try again later")

// stream is one agent's ADS stream. Its fields are set before it is served.
type stream struct {
	id         identity.ID
	connection *connection
	// lineage is that of the client's certificate.
	lineage string
	view    *view
	// tries says that the stream is on its view's latest generation.
	tries bool
	sets  sets
	end   context.CancelCauseFunc

	server *Server
	// node is what the client calls itself, and proxy its entry in the book; nil
	// until the first request names it.
	node  node
	proxy *proxy
	// taker is the PDP that takes Passports; nil until it asks for their keys.
	taker *taker
	// sent are the last responses of each type: a client that subscribes to
	// more is sent another while it looks at one.
	sent map[string][]sentResponse
}

// maxSent bounds the responses of one type that can still be answered.
const maxSent = 8

// sentResponse is what is known of a response when it is answered.
type sentResponse struct {
	nonce string
	// revision was the latest of the view, if the stream is on that.
	revision string
	// versions of the resources, by name.
	versions map[string]string
	// empty says that it told nothing.
	empty bool
}

var (
	_ xds.Source   = (*stream)(nil)
	_ xds.Observer = (*stream)(nil)
)

// DeltaAggregatedResources implements the ADS service. What a stream sees is
// its authenticated peer's view, whatever it says of itself.
func (s *Server) DeltaAggregatedResources(rpc discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	who, err := s.identify(rpc.Context())
	if err != nil {
		return err
	}
	if !who.connection.streams.Allow() {
		return errTooManyStreams
	}
	rpc = &impatientStream{rpc, who.connection, s.log}
	ctx, end := context.WithCancelCause(rpc.Context())
	defer end(nil)
	str := &stream{id: who.ID, connection: who.connection, lineage: who.certificate.Lineage, end: end, server: s, sent: map[string][]sentResponse{}}
	if err := s.views.open(who.ID, str); err != nil {
		return statusOf(err)
	}
	defer func() {
		s.views.close(str)
		if str.taker != nil {
			s.passports.left(str.taker)
		}
		s.proxies.disconnect(str.proxy, str.connection)
	}()
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()
	if err := xds.Serve(ctx, rpc, str, str); err != nil {
		return err
	}
	if rpc.Context().Err() != nil {
		return nil // the client's own wish
	}
	return statusOf(context.Cause(ctx))
}

// Collection implements xds.Source.
func (str *stream) Collection(typeURL string) (*xds.Collection, func(string) bool, error) {
	if c := str.sets[typeURL]; c != nil {
		return c, nil, nil
	}
	if typeURL == revocationsType {
		return &str.server.revocations.collection, nil, nil // everybody's
	}
	if c := str.server.views.shared[typeURL]; c != nil {
		return c, func(name string) bool { return str.view.may(typeURL, name) }, nil
	}
	return nil, nil, fmt.Errorf("type %.100q is not served", typeURL)
}

// Requested implements xds.Observer.
func (str *stream) Requested(req *discoveryv3.DeltaDiscoveryRequest) error {
	if err := str.introduce(req); err != nil {
		return err
	}
	typeURL := req.GetTypeUrl()
	if typeURL == passportKeysType {
		str.takes(req)
	}
	sent := str.answered(typeURL, req.GetResponseNonce())
	if detail := req.GetErrorDetail(); detail != nil {
		return str.reject(typeURL, sent, bounded(detail.GetMessage(), maxText))
	}
	if sent.nonce != "" {
		str.accept(typeURL, sent)
	}
	return nil
}

// accept takes an ACK.
func (str *stream) accept(typeURL string, sent sentResponse) {
	str.server.proxies.acknowledged(str.proxy, typeURL, sent.empty)
	if typeURL == providerType {
		str.server.providersAccepted(sent.versions)
	}
	if typeURL == passportKeysType && str.taker != nil {
		str.server.passports.acknowledged(str.taker, sent.versions)
	}
}

// reject takes a NACK.
func (str *stream) reject(typeURL string, sent sentResponse, why string) error {
	r := rejection{
		ID:       str.id,
		Instance: str.proxy.instance,
		By:       "agent",
		Revision: sent.revision,
		TypeURL:  typeURL,
		Names:    slices.Sorted(maps.Keys(sent.versions)),
		Text:     why,
		versions: sent.versions,
	}
	str.server.proxies.rejected(str.proxy, r)
	if !str.server.rejections.allow(str.id) {
		return errTooManyRejections
	}
	str.server.rejected(r)
	return nil
}

// answered returns the response that a request answers; the zero value when it
// is no answer.
func (str *stream) answered(typeURL, nonce string) sentResponse {
	for _, sent := range str.sent[typeURL] {
		if sent.nonce == nonce {
			return sent
		}
	}
	return sentResponse{}
}

// Responding implements xds.Observer.
func (str *stream) Responding(resp *discoveryv3.DeltaDiscoveryResponse) {
	typeURL := resp.GetTypeUrl()
	sent := sentResponse{
		nonce:    resp.GetNonce(),
		versions: map[string]string{},
		empty:    len(resp.GetResources())+len(resp.GetRemovedResources()) == 0,
	}
	if g := str.server.views.latest(str.id); g != nil && str.tries {
		sent.revision = g.revision
	}
	for _, r := range resp.GetResources() {
		sent.versions[r.GetName()] = r.GetVersion()
	}
	all := append(str.sent[typeURL], sent)
	str.sent[typeURL] = all[max(0, len(all)-maxSent):]
	if slices.Contains(ownTypes, typeURL) {
		str.server.proxies.responded(str.proxy, typeURL, str.digest(typeURL), sent.empty)
	}
}
