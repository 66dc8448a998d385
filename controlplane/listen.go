package controlplane

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/throttle"
)

// bounds are what one control plane takes on.
type bounds struct {
	// connections bounds all that have finished their handshake, perWorkload
	// those of one workload's instances together, and perAgent those with
	// certificates of one lineage.
	connections, perWorkload, perAgent int
	// strangers bounds the connections without a certificate, which are for
	// attestation, in all, and perAddress those of one address.
	strangers, perAddress int
	// arriving bounds the connections that have not finished their handshake, in
	// all, and arrivingPerAddress those of one address. They take nobody's place
	// who has.
	arriving, arrivingPerAddress int
	// handshakes bounds those of everybody: who comes too early waits. Those
	// of one address are bounded, too, or one could keep all others waiting.
	// Whoever has not said hello uses none up.
	handshakes, handshakesPerAddress limit
	// streams bounds the ADS streams that one connection opens, reports what it
	// reports.
	streams, reports limit
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

func (l limit) limiter() *rate.Limiter { return rate.NewLimiter(l.perSecond, l.burst) }

// defaultBounds suit some ten thousand agents, of which a thousand come back at
// once: a handshake takes about a millisecond of CPU.
func defaultBounds() bounds {
	return bounds{
		connections:          20_000,
		perWorkload:          5_000,
		perAgent:             16,
		strangers:            1_000,
		perAddress:           50,
		arriving:             8_000,
		arrivingPerAddress:   400,
		handshakes:           limit{500, 500},
		handshakesPerAddress: limit{100, 1_000},
		streams:              limit{5, 100},
		reports:              limit{20, 200},
		slow:                 30 * time.Second,
	}
}

// door is where agents come in: TLS by package identity, and as many as can be
// borne.
type door struct {
	*identity.ServerCredentials
	bounds  bounds
	metrics *metrics
	// lineageOf returns what the certificates of one agent have in common.
	lineageOf func(*x509.Certificate) string
	// closed ends the waiting before handshakes.
	closed context.Context //nolint:containedctx // gRPC hands none to a handshake
	close  context.CancelFunc

	handshakes *rate.Limiter
	addresses  limits[netip.Addr]

	mu sync.Mutex
	// arriving counts the connections in their handshake, by address.
	arriving tally[netip.Addr]
	// workloads counts all others. Those of strangers stand under the zero ID, and
	// in strangers by address; agents has the rest by lineage.
	workloads tally[identity.ID]
	agents    tally[string]
	strangers tally[netip.Addr]
}

// tally counts connections of several.
type tally[K comparable] struct {
	of  map[K]int
	all int
}

func (t *tally[K]) add(key K) {
	if t.of == nil {
		t.of = map[K]int{}
	}
	t.of[key]++
	t.all++
}

func (t *tally[K]) drop(key K) {
	t.all--
	if t.of[key]--; t.of[key] <= 0 {
		delete(t.of, key)
	}
}

var _ credentials.TransportCredentials = (*door)(nil)

func newDoor(source identity.Source, m *metrics, lineageOf func(*x509.Certificate) string) *door {
	d := &door{
		ServerCredentials: identity.NewServerCredentials(source),
		metrics:           m,
		lineageOf:         lineageOf,
	}
	d.Turn = d.turn
	d.closed, d.close = context.WithCancel(context.Background())
	d.bound(defaultBounds())
	return d
}

// bound sets the bounds for connections that arrive from then on.
func (d *door) bound(b bounds) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bounds = b
	d.handshakes = b.handshakes.limiter()
	d.addresses = limits[netip.Addr]{perSecond: b.handshakesPerAddress.perSecond, burst: b.handshakesPerAddress.burst}
}

// Why a connection is not admitted; the client only sees it close.
var (
	errFull      = errors.New("too many connections")
	errStorm     = errors.New("too many handshakes")
	errWorkload  = errors.New("too many connections of one workload")
	errAgent     = errors.New("too many connections with one agent's certificates")
	errArriving  = errors.New("too many connections in their handshake")
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
	if err := d.arrive(from); err != nil {
		return nil, err
	}
	conn, info, err := d.ServerCredentials.ServerHandshake(raw)
	d.arrived(from)
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: conn, peer: info.(identity.Peer), from: from, door: d}
	if !c.isStranger() {
		c.lineage = d.lineageOf(c.peer.Certificate)
	}
	c.streams, c.reports = d.bounds.streams.limiter(), d.bounds.reports.limiter()
	if err := d.count(c); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// turn waits for a client's turn to have its handshake.
func (d *door) turn(client net.Addr) error {
	if !d.addresses.allow(addressOf(client)) {
		return errStorm
	}
	ctx, cancel := context.WithTimeout(d.closed, handshakeWait)
	defer cancel()
	if err := d.handshakes.Wait(ctx); err != nil {
		return errStorm
	}
	return nil
}

// arrive counts a connection to those in their handshake.
func (d *door) arrive(from netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.arriving.all >= d.bounds.arriving || d.arriving.of[from] >= d.bounds.arrivingPerAddress {
		return errArriving
	}
	d.arriving.add(from)
	return nil
}

func (d *door) arrived(from netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.arriving.drop(from)
}

// count adds a connection to those of its workload and agent, or of nobody at
// its address.
func (d *door) count(c *connection) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch n := d.workloads.of[c.peer.ID]; {
	case d.workloads.all >= d.bounds.connections:
		return errFull
	case c.isStranger() && (n >= d.bounds.strangers || d.strangers.of[c.from] >= d.bounds.perAddress):
		return errStrangers
	case c.isStranger():
		d.strangers.add(c.from)
	case n >= d.bounds.perWorkload:
		return errWorkload
	case d.agents.of[c.lineage] >= d.bounds.perAgent:
		return errAgent
	default:
		d.agents.add(c.lineage)
	}
	d.workloads.add(c.peer.ID)
	d.metrics.connections.Inc()
	return nil
}

// discount takes back what count did.
func (d *door) discount(c *connection) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.workloads.drop(c.peer.ID)
	if c.isStranger() {
		d.strangers.drop(c.from)
	} else {
		d.agents.drop(c.lineage)
	}
	d.metrics.connections.Dec()
}

// Clone implements credentials.TransportCredentials.
func (d *door) Clone() credentials.TransportCredentials { return d }

// connection is one of an agent, and the AuthInfo of its calls.
type connection struct {
	net.Conn
	peer identity.Peer
	// lineage is empty for strangers.
	lineage string
	from    netip.Addr
	door    *door
	// streams bounds those that the agent opens, reports what it reports.
	streams, reports *rate.Limiter
	closed           sync.Once
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

// addressOf returns who is counted as one; zero for no address.
func addressOf(addr net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Addr{}
	}
	return throttle.Network(ap.Addr()).Addr()
}
