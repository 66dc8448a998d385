package attest

import (
	"cmp"
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/breaker"
	"github.com/chancery-mesh/chancery/identity"
)

const (
	// MetaKey is where in its registration's metadata an agent writes a nonce.
	MetaKey = "chancery-attestation"
	// nonceLifetime is time enough for two writes and anti-entropy between.
	nonceLifetime = time.Minute
	// maxUsed bounds the nonces that are remembered as used.
	maxUsed = 100_000
	// maxWait bounds how long a registration is waited for.
	maxWait = 10 * time.Second
)

// validServiceID is what Consul's filter takes without quoting.
var validServiceID = regexp.MustCompile(`^[A-Za-z0-9._:/@~+=-]{1,255}$`)

// ConsulConfig of a [Consul]. Every field has a default.
type ConsulConfig struct {
	// API says where Consul is, with a token that may read the services;
	// default is the standard CONSUL_* environment.
	API *api.Config
	// WithoutACLs takes a registration as a proof also where anybody can write
	// it.
	WithoutACLs bool
	// Audit hears of every attempt; default none.
	Audit *audit.Log
	// Logger hears of Consul failing; default none.
	Logger *slog.Logger
	// Registerer of the metrics; default none.
	Registerer prometheus.Registerer
}

// Consul proves that an agent may write the registration of its service, by
// what its ACL token allows and without seeing that token. It is safe for
// concurrent use.
type Consul struct {
	consul      *consulClient
	withoutACLs bool
	audit       *audit.Log
	secret      [sha256.Size]byte

	mu   sync.Mutex
	used map[string]time.Time // until when each nonce would be good
}

// NewConsul returns a Consul that has asked nothing yet. Nonces are good for
// this one alone, so none survives a restart.
func NewConsul(c ConsulConfig) (*Consul, error) {
	guard := breaker.New(breaker.Config{
		Name: "consul_attestation", OpenFor: time.Second, Logger: c.Logger, Registerer: c.Registerer,
	})
	client, err := newConsulClient(cmp.Or(c.API, api.DefaultConfig()), guard)
	if err != nil {
		return nil, fmt.Errorf("consul client: %w", err)
	}
	a := &Consul{consul: client, withoutACLs: c.WithoutACLs, audit: c.Audit, used: map[string]time.Time{}}
	_, _ = rand.Read(a.secret[:]) // never fails, see its contract
	return a, nil
}

// Challenge returns a nonce for the owner of key to write into the registration
// of one instance of a service, and for how long it is good.
func (a *Consul) Challenge(service, serviceID string, key crypto.PublicKey) (nonce string, lifetime time.Duration, err error) {
	if err := checkInstance(service, serviceID); err != nil {
		return "", 0, err
	}
	print, err := fingerprint(key)
	if err != nil {
		return "", 0, err
	}
	// The end, and bytes that make each nonce another.
	head := binary.BigEndian.AppendUint64(nil, uint64(time.Now().Add(nonceLifetime).Unix()))
	head = append(head, make([]byte, 16)...)
	_, _ = rand.Read(head[8:]) // never fails, see its contract
	return a.seal(head, service, serviceID, print), nonceLifetime, nil
}

// seal returns a nonce: head, and a MAC of all that it is bound to. So a
// challenge needs no memory, which strangers could fill.
func (a *Consul) seal(head []byte, service, serviceID string, key [sha256.Size]byte) string {
	mac := hmac.New(sha256.New, a.secret[:])
	for _, part := range [][]byte{head, []byte(service), []byte(serviceID), key[:]} {
		_ = binary.Write(mac, binary.BigEndian, uint32(len(part))) // a hash takes all
		_, _ = mac.Write(part)
	}
	return base64.RawURLEncoding.EncodeToString(mac.Sum(head))
}

// open returns when a nonce ends, or an error unless it is of this Consul for
// this instance and key.
func (a *Consul) open(nonce, service, serviceID string, key [sha256.Size]byte) (time.Time, error) {
	raw, err := base64.RawURLEncoding.DecodeString(nonce)
	if err != nil || len(raw) != 24+sha256.Size {
		return time.Time{}, errors.New("nonce is not one of this control plane")
	}
	want := a.seal(raw[:24:24], service, serviceID, key)
	if subtle.ConstantTimeCompare([]byte(want), []byte(nonce)) != 1 {
		return time.Time{}, errors.New("nonce is of another control plane, instance or key")
	}
	end := time.Unix(int64(binary.BigEndian.Uint64(raw)), 0)
	if !time.Now().Before(end) {
		return time.Time{}, errors.New("nonce expired")
	}
	return end, nil
}

// Verify returns nil once the registration of an instance of service has the
// nonce that [Consul.Challenge] gave for key, and if only who may write the
// service can have written it. It waits a little for Consul to have it. A nonce
// is good once; by is who asks.
//
// The error says the same to all; what it wraps, and the audit log, have why.
func (a *Consul) Verify(ctx context.Context, p Proof, key crypto.PublicKey, by string) error {
	err := a.verify(ctx, p, key)
	e := audit.Event{
		Event: "consul registration shown", Subject: "service/" + p.Service, By: by, Outcome: audit.Done,
		Details: map[string]string{"service_id": p.ServiceID},
	}
	if err != nil {
		e.Outcome, e.Reason = audit.Refused, err.Error()
		err = &notShown{err}
	}
	a.audit.Record(e)
	return err
}

// notShown says to all the same: what Consul has, and whether it answers, is
// not for those to know who have proved nothing.
type notShown struct{ reason error }

// Error implements error.
func (*notShown) Error() string {
	return "consul does not show that this agent may write its service; the control plane's audit log says why"
}

// Unwrap returns the reason.
func (e *notShown) Unwrap() error { return e.reason }

func (a *Consul) verify(ctx context.Context, p Proof, key crypto.PublicKey) error {
	if err := checkInstance(p.Service, p.ServiceID); err != nil {
		return err
	}
	print, err := fingerprint(key)
	if err != nil {
		return err
	}
	end, err := a.open(p.Nonce, p.Service, p.ServiceID, print)
	if err != nil {
		return err
	}
	if !a.withoutACLs {
		if err := a.consul.checkACLs(ctx, p.Service); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	if err := a.consul.await(ctx, p); err != nil {
		return err
	}
	return a.use(p.Nonce, end)
}

// use makes a nonce good for nobody any more.
func (a *Consul) use(nonce string, end time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if !now.Before(end) {
		return errors.New("nonce expired")
	}
	if _, twice := a.used[nonce]; twice {
		return errors.New("nonce was used already")
	}
	if len(a.used) >= maxUsed {
		return errors.New("too many agents join at once; try again in a minute")
	}
	for other, ended := range a.used {
		if !now.Before(ended) {
			delete(a.used, other)
		}
	}
	a.used[nonce] = end
	return nil
}

func checkInstance(service, serviceID string) error {
	if _, err := identity.ParseWorkload("service/" + service); err != nil {
		return fmt.Errorf("%q cannot name a service", service)
	}
	if !validServiceID.MatchString(serviceID) {
		return errors.New("the instance's ID in Consul is not 1 to 255 of A-Z, a-z, 0-9 and ._:/@~+=-")
	}
	return nil
}
