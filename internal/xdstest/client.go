// Package xdstest is a delta ADS client to test servers with. It does nothing
// of its own accord: a test says what is subscribed to, acknowledged and
// rejected.
package xdstest

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// patience is how long a client waits for what must come.
const patience = 30 * time.Second

// Dial connects to a gRPC server, which may be just starting, until the test
// ends.
func Dial(t testing.TB, target string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	return DialWith(t, target, insecure.NewCredentials(), options...)
}

// DialWith is Dial with credentials.
func DialWith(t testing.TB, target string, creds credentials.TransportCredentials, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append(options,
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Client is one stream.
type Client struct {
	t      testing.TB
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	cancel context.CancelFunc
	sent   bool
	in     chan *discoveryv3.DeltaDiscoveryResponse
	err    error // valid once in is closed
}

// Open opens a stream until the test ends.
func Open(t testing.TB, conn *grpc.ClientConn) *Client {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c := &Client{t: t, stream: stream, cancel: cancel, in: make(chan *discoveryv3.DeltaDiscoveryResponse)}
	go c.receive(ctx)
	t.Cleanup(c.Close)
	return c
}

func (c *Client) receive(ctx context.Context) {
	defer close(c.in)
	for {
		resp, err := c.stream.Recv()
		if err != nil {
			c.err = err
			return
		}
		select {
		case c.in <- resp:
		case <-ctx.Done():
			c.err = ctx.Err()
			return
		}
	}
}

// Close ends the stream from the client's side.
func (c *Client) Close() {
	c.cancel()
	for range c.in {
	}
}

// Send sends a request; the first names a node. That the stream has ended shows
// in [Client.Ended].
func (c *Client) Send(req *discoveryv3.DeltaDiscoveryRequest) {
	c.t.Helper()
	if !c.sent && req.GetNode() == nil {
		req.Node = &corev3.Node{Id: "1"}
	}
	c.SendAsIs(req)
}

// SendAsIs sends a request, with no node unless it has one.
func (c *Client) SendAsIs(req *discoveryv3.DeltaDiscoveryRequest) {
	c.t.Helper()
	c.sent = true
	_ = c.stream.Send(req)
}

// Failed reports whether requests no longer get out: the stream has ended.
func (c *Client) Failed() bool { return c.stream.Context().Err() != nil }

// Subscribe asks for names of a type; "*" is all.
func (c *Client) Subscribe(typeURL string, names ...string) {
	c.t.Helper()
	c.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names})
}

// Unsubscribe ends the interest in names of a type.
func (c *Client) Unsubscribe(typeURL string, names ...string) {
	c.t.Helper()
	c.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesUnsubscribe: names})
}

// Resume subscribes as a client does that held versions before.
func (c *Client) Resume(typeURL string, held map[string]string, names ...string) {
	c.t.Helper()
	c.Send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl:                 typeURL,
		ResourceNamesSubscribe:  names,
		InitialResourceVersions: held,
	})
}

// ACK acknowledges a response.
func (c *Client) ACK(resp *discoveryv3.DeltaDiscoveryResponse) {
	c.t.Helper()
	c.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()})
}

// NACK rejects a response.
func (c *Client) NACK(resp *discoveryv3.DeltaDiscoveryResponse, why string) {
	c.t.Helper()
	c.Send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl:       resp.GetTypeUrl(),
		ResponseNonce: resp.GetNonce(),
		ErrorDetail:   &status.Status{Code: int32(codes.InvalidArgument), Message: why},
	})
}

// Next returns the next response.
func (c *Client) Next() *discoveryv3.DeltaDiscoveryResponse {
	c.t.Helper()
	select {
	case resp, ok := <-c.in:
		if !ok {
			c.t.Fatalf("stream ended: %v", c.err)
		}
		return resp
	case <-time.After(patience):
		c.t.Fatal("no response")
	}
	return nil
}

// NextACK returns the next response and acknowledges it.
func (c *Client) NextACK() *discoveryv3.DeltaDiscoveryResponse {
	c.t.Helper()
	resp := c.Next()
	c.ACK(resp)
	return resp
}

// Until returns the responses that come until none has come for d, or the
// stream has ended.
func (c *Client) Until(d time.Duration) iter.Seq[*discoveryv3.DeltaDiscoveryResponse] {
	return func(yield func(*discoveryv3.DeltaDiscoveryResponse) bool) {
		for {
			select {
			case resp, ok := <-c.in:
				if !ok || !yield(resp) {
					return
				}
			case <-time.After(d):
				return
			}
		}
	}
}

// Quiet fails when a response comes within d.
func (c *Client) Quiet(d time.Duration) {
	c.t.Helper()
	select {
	case resp, ok := <-c.in:
		c.t.Fatalf("unexpected: %v, stream open %v", Summary(resp), ok)
	case <-time.After(d):
	}
}

// Ended waits until the server has ended the stream, and returns why.
func (c *Client) Ended() error {
	c.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case _, ok := <-c.in:
			if !ok {
				return c.err
			}
		case <-timeout:
			c.t.Fatal("stream did not end")
		}
	}
}

// Summary says what is in a response: "+name" for a resource, "-name" for one
// that is removed, sorted.
func Summary(resp *discoveryv3.DeltaDiscoveryResponse) []string {
	var out []string
	for _, r := range resp.GetResources() {
		out = append(out, fmt.Sprintf("+%s", r.GetName()))
	}
	for _, name := range resp.GetRemovedResources() {
		out = append(out, "-"+name)
	}
	slices.Sort(out)
	return out
}
