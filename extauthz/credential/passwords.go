package credential

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/chancery-mesh/chancery/internal/memory"
	"github.com/chancery-mesh/chancery/internal/throttle"
)

// Passwords verifies names with passwords. It remembers those that were right, and
// bounds what wrong ones cost: guesses at a user from an address, guesses from an
// address, guesses at a user from everywhere, hashes at once. Nothing of that locks
// a user out where they have been. It is safe for concurrent use, and outlives any
// [Users].
type Passwords struct {
	// secret keeps what is remembered useless outside of this process, and seed
	// who shares a slot of a throttle unknown.
	secret [sha256.Size]byte
	seed   maphash.Seed
	// verified are right passwords, trusted the addresses that users come from.
	verified, trusted           *memory.Memory[struct{}]
	byOrigin, byAddress, byUser *throttle.Throttle
	// queue bounds who waits for one of slots, which bound hashes at once.
	queue, slots chan struct{}
	flights      singleflight.Group
}

const (
	// verifiedSize bounds what is remembered of passwords and of addresses, each
	// for so long.
	verifiedSize = 8192
	verifiedFor  = 10 * time.Minute
	trustedFor   = 24 * time.Hour
	// queuePerSlot times the time of a hash is what a client waits.
	queuePerSlot = 16
)

// NewPasswords returns one that has seen nothing yet.
func NewPasswords() *Passwords {
	// Half of the processors are left for everything else.
	slots := max(1, runtime.GOMAXPROCS(0)/2)
	p := &Passwords{
		seed:     maphash.MakeSeed(),
		verified: memory.New[struct{}](verifiedSize), trusted: memory.New[struct{}](verifiedSize),
		byOrigin: throttle.New(10, 10*time.Second), byAddress: throttle.New(100, time.Second),
		byUser: throttle.New(100, 30*time.Second),
		slots:  make(chan struct{}, slots), queue: make(chan struct{}, slots*queuePerSlot),
	}
	_, _ = rand.Read(p.secret[:]) // never fails
	return p
}

// origin is a user as a client names it, and where the client is.
type origin struct {
	users, user string
	network     netip.Prefix
}

// attempt is one password that somebody tries.
type attempt struct {
	origin
	user     *user
	password string
	// key is of all that the verdict depends on but origin's network.
	key [sha256.Size]byte
	now time.Time
}

// Verify returns who b is, if it is one of users. Address is the client's. An
// error is a [Reason]: that a user is disabled is told of a right password only,
// and Busy that nobody could decide.
func (p *Passwords) Verify(ctx context.Context, users *Users, b Basic, address netip.Addr, now time.Time) (*Identity, error) {
	a := attempt{origin: origin{users.name, b.User, throttle.Network(address)}, password: b.Password, now: now}
	a.user = users.find(b.User, maphash.String(p.seed, b.User))
	a.key = p.digest(users.name, a.user.text, b.User, b.Password)
	if err := p.try(ctx, &a); err != nil {
		return nil, err
	}
	if a.user.disabled {
		return nil, UserDisabled
	}
	return &a.user.identity, nil
}

// try returns nil for the right password.
func (p *Passwords) try(ctx context.Context, a *attempt) error {
	if known, err := p.remembered(a); known {
		return err
	}
	// What comes at once, as from a client that opens many connections, is hashed
	// and counted once.
	flight := p.digest(string(a.key[:]), a.network.String())
	done := p.flights.DoChan(string(flight[:]), func() (any, error) { return nil, p.guessSafely(a) })
	select {
	case result := <-done:
		return result.Err
	case <-ctx.Done():
		return Busy
	}
}

// remembered reports whether the password is known to be right, and returns
// whether that counts.
func (p *Passwords) remembered(a *attempt) (known bool, err error) {
	if _, known := p.verified.Get(&a.key, a.now); !known {
		return false, nil
	}
	// Or else guesses would be free once the user has been here.
	if !p.byOrigin.Allows(maphash.Comparable(p.seed, a.origin), a.now) {
		return true, Throttled
	}
	return true, nil
}

// guessSafely is guess, but that a panic is nobody's decision: it is in a goroutine
// where no one else takes it.
func (p *Passwords) guessSafely(a *attempt) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: panic: %v", Busy, p)
		}
	}()
	return p.guess(a)
}

// bound is one of the limits on an attempt.
type bound struct {
	*throttle.Throttle
	key uint64
}

// guess counts an attempt, and hashes it.
func (p *Passwords) guess(a *attempt) error {
	// An earlier flight may have landed since nothing was known.
	if known, err := p.remembered(a); known {
		return err
	}
	home := p.digest(a.users, a.origin.user, a.network.String())
	bounds := []bound{{p.byOrigin, maphash.Comparable(p.seed, a.origin)}}
	// Where the user has been before, neither guesses at others count, nor guesses
	// from elsewhere.
	if _, trusted := p.trusted.Get(&home, a.now); !trusted {
		user := origin{users: a.users, user: a.origin.user}
		bounds = []bound{{p.byAddress, maphash.Comparable(p.seed, a.network)}, bounds[0], {p.byUser, maphash.Comparable(p.seed, user)}}
	}
	for _, b := range bounds {
		if !b.Take(b.key, a.now) {
			return Throttled
		}
	}
	err := p.hash(a)
	if errors.Is(err, BadPassword) {
		return err
	}
	for _, b := range bounds {
		b.GiveBack(b.key)
	}
	if err == nil {
		p.verified.Put(a.key, struct{}{}, a.now.Add(verifiedFor), 0, a.now)
		p.trusted.Put(home, struct{}{}, a.now.Add(trustedFor), 0, a.now)
	}
	return err
}

// hash compares, once it is its turn.
func (p *Passwords) hash(a *attempt) error {
	select {
	case p.queue <- struct{}{}:
		defer func() { <-p.queue }()
	default:
		return Busy
	}
	p.slots <- struct{}{}
	defer func() { <-p.slots }()
	if !a.user.hash.matches(a.password) {
		return BadPassword
	}
	return nil
}

// digest tells lists of parts apart: each begins with its length.
func (p *Passwords) digest(parts ...string) [sha256.Size]byte {
	h := hmac.New(sha256.New, p.secret[:])
	for _, part := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	return [sha256.Size]byte(h.Sum(nil))
}
