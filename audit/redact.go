package audit

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"net/netip"
	"sync"
)

// Redact says what a record tells of a field.
type Redact string

// What there is to say. Fields take [Keep], [Hash] and [Omit]; an address takes
// [Network] too, and a path [Pattern].
const (
	// Keep is as it is.
	Keep Redact = "keep"
	// Hash is a keyed hash, by which equal ones are found and no more.
	Hash Redact = "hash"
	// Omit is not at all.
	Omit Redact = "omit"
	// Network is the network of an address: its /24, or /48 of IPv6.
	Network Redact = "network"
	// Pattern is the route's pattern instead of the path.
	Pattern Redact = "route"
)

// Redaction says it of each field that may be about a person. The zero value of
// each is its default: an address is cut to its network, all else is kept.
type Redaction struct {
	User, Tenant, Client, IP, Path Redact
}

// Redactor applies a [Redaction]. It is safe for concurrent use. A nil one
// applies the default.
type Redactor struct {
	rules  Redaction
	hashes sync.Pool // of hash.Hash
}

var standard = &Redactor{rules: Redaction{}.WithDefaults()}

// WithDefaults returns r with what it does not say.
func (r Redaction) WithDefaults() Redaction {
	return Redaction{
		User: cmp.Or(r.User, Keep), Tenant: cmp.Or(r.Tenant, Keep), Client: cmp.Or(r.Client, Keep),
		IP: cmp.Or(r.IP, Network), Path: cmp.Or(r.Path, Keep),
	}
}

// minKey is the shortest key that a [Redactor] hashes with. User names can be
// guessed, so the key alone keeps a hash from being turned back.
const minKey = 32

// Check returns what is wrong with r.
func (r Redaction) Check() error {
	_, err := NewRedactor(r, make([]byte, minKey))
	return err
}

// KeepsText reports whether texts may stand for themselves that might tell of
// users, clients or paths: errors, as rules cause.
func (r Redaction) KeepsText() bool {
	r = r.WithDefaults()
	return r.User == Keep && r.Tenant == Keep && r.Client == Keep && r.Path == Keep
}

// NewRedactor returns one that hashes with key, which must have 32 bytes if
// anything is hashed, and which must not be told.
func NewRedactor(r Redaction, key []byte) (*Redactor, error) {
	r = r.WithDefaults()
	for _, field := range []struct {
		name  string
		says  Redact
		extra Redact
	}{
		{"user", r.User, Keep}, {"tenant", r.Tenant, Keep}, {"client", r.Client, Keep}, {"ip", r.IP, Network}, {"path", r.Path, Pattern},
	} {
		switch field.says {
		case Keep, Omit, field.extra:
		case Hash:
			if len(key) < minKey {
				return nil, fmt.Errorf("redact %s: hashing needs a key of %d bytes", field.name, minKey)
			}
		default:
			return nil, fmt.Errorf("redact %s: %q is not a way to redact it", field.name, field.says)
		}
	}
	return &Redactor{rules: r, hashes: sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}, nil
}

// Apply redacts d.
func (r *Redactor) Apply(d *Decision) {
	if r == nil {
		r = standard
	}
	d.User = r.text(r.rules.User, d.User)
	d.Tenant = r.text(r.rules.Tenant, d.Tenant)
	d.Client = r.text(r.rules.Client, d.Client)
	d.IP = r.text(r.rules.IP, d.IP)
	d.Path = withoutQuery(d.Path)
	if r.rules.Path == Pattern {
		d.Path = d.Pattern
	} else {
		d.Path = r.text(r.rules.Path, d.Path)
	}
}

func (r *Redactor) text(how Redact, s string) string {
	switch {
	case s == "" || how == Keep:
		return s
	case how == Hash:
		return r.hash(s)
	case how == Network:
		return network(s)
	}
	return ""
}

// network returns the /24 or /48 of an address, and nothing of what is none.
func network(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	ip = ip.Unmap().WithZone("")
	bits := 48
	if ip.Is4() {
		bits = 24
	}
	return netip.PrefixFrom(ip, bits).Masked().String()
}

// hash returns 96 bits of the keyed hash of s: enough that two users never have
// the same by accident.
func (r *Redactor) hash(s string) string {
	h := r.hashes.Get().(hash.Hash)
	defer r.hashes.Put(h)
	h.Reset()
	_, _ = h.Write([]byte(s)) // a hash takes everything
	var sum [sha256.Size]byte
	return "hmac:" + base64.RawURLEncoding.EncodeToString(h.Sum(sum[:0])[:12])
}
