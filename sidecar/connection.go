package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	grpccredentials "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

const (
	// maxResponse bounds a response of the control plane: all clusters, or the
	// one route configuration, of a big mesh.
	maxResponse = 64 << 20
	// connectTimeout bounds the wait for a new connection that shall replace
	// one that works.
	connectTimeout = 5 * time.Second
)

// connection is the agent's connection to the control plane, which names the
// agent by its certificate. Once there is a newer one, a new connection takes
// the place of the old, make before break. It is safe for concurrent use.
type connection struct {
	target      string
	credentials grpccredentials.TransportCredentials

	mu      sync.Mutex
	current *grpc.ClientConn
	// moved is closed when current is replaced.
	moved chan struct{}
}

var _ grpc.ClientConnInterface = (*connection)(nil)

func newConnection(target string, creds grpccredentials.TransportCredentials) *connection {
	return &connection{target: target, credentials: creds, moved: make(chan struct{})}
}

// renew connects with the newest certificate. The connection before is closed
// when the new one stands, and kept if that takes too long.
func (c *connection) renew(ctx context.Context) error {
	next, err := dial(c.target, c.credentials)
	if err != nil {
		return err
	}
	c.mu.Lock()
	first := c.current == nil
	c.mu.Unlock()
	if !first {
		if err := connect(ctx, next); err != nil {
			return fmt.Errorf("connect with the new certificate: %w", joinClose(err, next))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.current
	c.current = next
	close(c.moved)
	c.moved = make(chan struct{})
	if before != nil {
		return before.Close()
	}
	return nil
}

// connect waits until the other side has taken our certificate, too: gRPC calls
// a connection ready when the server has spoken.
func connect(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if !conn.WaitForStateChange(ctx, state) {
			return ctx.Err()
		}
	}
	return nil
}

// get returns the connection, and a channel that is closed when another one
// takes over. Before there is a certificate there is none, and it waits.
func (c *connection) get(ctx context.Context) (*grpc.ClientConn, <-chan struct{}, error) {
	for {
		c.mu.Lock()
		current, moved := c.current, c.moved
		c.mu.Unlock()
		if current != nil {
			return current, moved, nil
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-moved:
		}
	}
}

// replaced returns a channel that is closed when another connection takes over.
func (c *connection) replaced(ctx context.Context) <-chan struct{} {
	_, moved, _ := c.get(ctx) // nil, as for ever, when ctx ended
	return moved
}

// Invoke implements grpc.ClientConnInterface.
func (c *connection) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	conn, _, err := c.get(ctx)
	if err != nil {
		return err
	}
	return conn.Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (c *connection) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	conn, _, err := c.get(ctx)
	if err != nil {
		return nil, err
	}
	return conn.NewStream(ctx, desc, method, opts...)
}

// close ends the connection, at the agent's end.
func (c *connection) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil {
		return nil
	}
	return c.current.Close()
}

func joinClose(err error, conn *grpc.ClientConn) error {
	_ = conn.Close() // it never stood
	return err
}

func dial(target string, creds grpccredentials.TransportCredentials) (*grpc.ClientConn, error) {
	return grpc.NewClient(target,
		grpc.WithNoProxy(),
		grpc.WithTransportCredentials(creds),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponse)),
	)
}

// watchedCredentials tell why connections to the control plane do not come
// about, which gRPC tells nobody who waits.
type watchedCredentials struct {
	grpccredentials.TransportCredentials
	// failed returns who is told of the reasons; refused says that the control
	// plane did not take our certificate. It is called before each handshake.
	failed func() func(err error, refused bool)
}

// Clone implements grpccredentials.TransportCredentials.
func (w *watchedCredentials) Clone() grpccredentials.TransportCredentials { return w }

// ClientHandshake implements grpccredentials.TransportCredentials.
func (w *watchedCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, grpccredentials.AuthInfo, error) {
	failed := w.failed()
	conn, info, err := w.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		failed(err, false)
		return nil, nil, err
	}
	return &watchedConn{Conn: conn, failed: failed}, info, nil
}

// watchedConn hears the control plane refuse a certificate: in TLS 1.3 a client
// has shaken hands by then.
type watchedConn struct {
	net.Conn
	failed func(error, bool)
}

// Read implements net.Conn.
func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" {
		c.failed(err, strings.Contains(alert.Err.Error(), "certificate"))
	}
	return n, err
}
