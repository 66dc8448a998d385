package controlplane

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/chancery-mesh/chancery/identity"
)

// bounds are what one control plane takes on.
type bounds struct {
	// connections bounds all of them, perWorkload those of one workload's
	// instances together.
	connections, perWorkload int
	// strangers bounds the connections without a certificate, which are for
	// attestation, in all, and perAddress those of one address.
	strangers, perAddress int
	// handshakes bounds those of everybody: who comes too early waits. Those
	// of one address are bounded, too, or one could keep all others waiting.
	handshakes, handshakesPerAddress limit
	// streams bounds the ADS streams that one connection opens.
	streams limit
	// slow is how long a client may take to read a response.
	slow time.Duration
}

// handshakeWait is how long a connection waits for its turn.
const handshakeWait = 5 * time.Second

// limit is a token bucket's.
type limit struct {
	perSecond rate.Limit
	burst     int
}

// defaultBounds suit some ten thousand agents, of which a thousand come back at
// once: a handshake takes about a millisecond of CPU.
func defaultBounds() bounds {
	return bounds{
		connections:          20_000,
		perWorkload:          5_000,
		strangers:            1_000,
		perAddress:           50,
		handshakes:           limit{500, 500},
		handshakesPerAddress: limit{250, 2_000},
		streams:              limit{5, 100},
		slow:                 30 * time.Second,
	}
}

// door is where agents come in: TLS by package identity, and as many as can be
// borne.
type door struct {
	*identity.ServerCredentials
	bounds  bounds
	metrics *metrics
	// closed ends the waiting before handshakes.
	closed context.Context //nolint:containedctx // gRPC hands none to a handshake
	close  context.CancelFunc

	handshakes *rate.Limiter
	addresses  limits[netip.Addr]

	mu   sync.Mutex
	open int
	// workloads count connections; those of strangers stand under the zero ID,
	// and under their addresses.
	workloads map[identity.ID]int
	strangers map[netip.Addr]int
}

var _ credentials.TransportCredentials = (*door)(nil)

func newDoor(source identity.Source, m *metrics) *door {
	d := &door{
		ServerCredentials: identity.NewServerCredentials(source),
		metrics:           m,
		workloads:         map[identity.ID]int{},
		strangers:         map[netip.Addr]int{},
	}
	d.closed, d.close = context.WithCancel(context.Background())
	d.bound(defaultBounds())
	return d
}

func (d *door) bound(b bounds) {
	d.bounds = b
	d.handshakes = rate.NewLimiter(b.handshakes.perSecond, b.handshakes.burst)
	d.addresses = limits[netip.Addr]{perSecond: b.handshakesPerAddress.perSecond, burst: b.handshakesPerAddress.burst}
}

// Why a connection is not admitted; the client only sees it close.
var (
	errFull      = errors.New("too many connections")
	errStorm     = errors.New("too many handshakes")
	errWorkload  = errors.New("too many connections of one workload")
	errStrangers = errors.New("too many connections without a certificate")
)

// ServerHandshake implements credentials.TransportCredentials.
func (d *door) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, err := d.admit(raw)
	if err != nil {
		d.metrics.connectionsRefused.Inc()
		return nil, nil, err
	}
	return c, c, nil
}

// admit makes a connection of an agent from a raw one.
func (d *door) admit(raw net.Conn) (*connection, error) {
	from := addressOf(raw.RemoteAddr())
	if !d.addresses.allow(from) {
		return nil, errStorm
	}
	if err := d.enter(); err != nil {
		return nil, err
	}
	conn, who, err := d.handshake(raw)
	if err != nil {
		d.leave()
		return nil, err
	}
	c := &connection{Conn: conn, peer: who, from: from, door: d}
	c.streams = rate.NewLimiter(d.bounds.streams.perSecond, d.bounds.streams.burst)
	if err := d.count(c); err != nil {
		d.leave()
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// handshake waits for its turn.
func (d *door) handshake(raw net.Conn) (net.Conn, identity.Peer, error) {
	ctx, cancel := context.WithTimeout(d.closed, handshakeWait)
	defer cancel()
	if err := d.handshakes.Wait(ctx); err != nil {
		return nil, identity.Peer{}, errStorm
	}
	conn, info, err := d.ServerCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, identity.Peer{}, err
	}
	return conn, info.(identity.Peer), nil
}

func (d *door) enter() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open >= d.bounds.connections {
		return errFull
	}
	d.open++
	return nil
}

func (d *door) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
}

// count adds a connection to those of its workload, or of nobody at its address.
func (d *door) count(c *connection) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch n := d.workloads[c.peer.ID]; {
	case c.isStranger() && (n >= d.bounds.strangers || d.strangers[c.from] >= d.bounds.perAddress):
		return errStrangers
	case !c.isStranger() && n >= d.bounds.perWorkload:
		return errWorkload
	case c.isStranger():
		d.strangers[c.from]++
	}
	d.workloads[c.peer.ID]++
	d.metrics.connections.Inc()
	return nil
}

// discount takes back what enter and count did.
func (d *door) discount(c *connection) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
	drop(d.workloads, c.peer.ID)
	if c.isStranger() {
		drop(d.strangers, c.from)
	}
	d.metrics.connections.Dec()
}

func drop[K comparable](of map[K]int, key K) {
	if of[key]--; of[key] <= 0 {
		delete(of, key)
	}
}

// Clone implements credentials.TransportCredentials.
func (d *door) Clone() credentials.TransportCredentials { return d }

// connection is one of an agent, and the AuthInfo of its calls.
type connection struct {
	net.Conn
	peer identity.Peer
	from netip.Addr
	door *door
	// streams bounds those that the agent opens.
	streams *rate.Limiter
	closed  sync.Once
}

// AuthType implements credentials.AuthInfo.
func (c *connection) AuthType() string { return c.peer.AuthType() }

func (c *connection) isStranger() bool { return c.peer.ID.IsZero() }

// Close implements net.Conn.
func (c *connection) Close() error {
	c.closed.Do(func() { c.door.discount(c) })
	return c.Conn.Close()
}

// cut ends the connection, whatever it is busy with.
func (c *connection) cut() { _ = c.Close() }

// connectionOf returns the connection of a call.
func connectionOf(ctx context.Context) (*connection, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, false
	}
	c, ok := p.AuthInfo.(*connection)
	return c, ok
}

// addressOf returns who is counted as one: an IPv4 address, or an IPv6 network
// as one customer gets it.
func addressOf(addr net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Addr{}
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is6() {
		return netip.PrefixFrom(ip, 64).Masked().Addr()
	}
	return ip
}
