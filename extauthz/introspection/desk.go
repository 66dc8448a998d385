package introspection

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/url"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/breaker"
	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

const keySize = sha256.Size

// desk is where one provider is asked. It is immutable but for its line.
type desk struct {
	provider *chancerypb.Provider
	reader   *credential.Introspection
	secret   func(name string) (string, error)
	// digest of everything that an answer and its reading depend on.
	digest [keySize]byte
	*line
}

// line bounds the calls to one endpoint.
type line struct {
	client *breaker.Client
	rate   *rate.Limiter
	calls  chan struct{}
}

// desk returns that of a provider as p describes it. It is the same one until
// another p comes: when only keys are new, with the same line.
func (i *Introspector) desk(p *chancerypb.Provider) (*desk, error) {
	if known := i.knownDesk(p); known != nil && known.provider == p {
		return known, nil
	}
	// One at a time: two lines would let in twice as many.
	i.making.Lock()
	defer i.making.Unlock()
	before := i.knownDesk(p)
	if before != nil && before.provider == p {
		return before, nil
	}
	how := p.GetIntrospection()
	if how.GetEndpoint() == "" {
		return nil, errors.New("where to ask is not known")
	}
	reader, err := credential.NewIntrospection(p)
	if err != nil {
		return nil, err
	}
	digest, err := digestOf(p)
	if err != nil {
		return nil, err
	}
	d := &desk{provider: p, reader: reader, secret: i.cfg.Secret, digest: digest}
	if before != nil && proto.Equal(before.provider.GetIntrospection(), how) {
		d.line = before.line
	} else {
		d.line = i.newLine(p)
	}
	if before == nil {
		if i.desksIn++; i.desksIn > maxDesks {
			i.desks.Clear()
			i.desksIn = 1
		}
	}
	i.desks.Store(p.GetName(), d)
	return d, nil
}

// knownDesk returns the last one of a provider's name, or nil.
func (i *Introspector) knownDesk(p *chancerypb.Provider) *desk {
	known, _ := i.desks.Load(p.GetName())
	d, _ := known.(*desk)
	return d
}

func (i *Introspector) newLine(p *chancerypb.Provider) *line {
	how := p.GetIntrospection()
	client := i.cfg.Client
	if client == nil {
		client = breaker.Outward(how.GetAllowPrivate())
	}
	perSecond := int(how.GetRate())
	return &line{
		client: breaker.HTTP(breaker.New(breaker.Config{
			Name: "introspection-" + p.GetName(), Timeout: i.timeout, Logger: i.cfg.Logger, Registerer: i.cfg.Registerer,
		}), client),
		rate:  rate.NewLimiter(rate.Limit(perSecond), perSecond),
		calls: make(chan struct{}, maxCalls),
	}
}

// digestOf begins each part with its length, so nothing can be moved between
// them.
func digestOf(p *chancerypb.Provider) (digest [keySize]byte, err error) {
	how := p.GetIntrospection()
	rest := proto.CloneOf(p)
	rest.Jwks, rest.FetchedAt, rest.UsableUntil = nil, nil, nil
	reading, err := proto.MarshalOptions{Deterministic: true}.Marshal(rest)
	h := sha256.New()
	for _, part := range []string{p.GetIssuer(), how.GetEndpoint(), how.GetClient(), string(reading)} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	return [keySize]byte(h.Sum(nil)), err
}

// key is what an answer about a token is remembered by: two digests of fixed
// length, that of the whole token and that of who was asked.
func (d *desk) key(token string) [keySize]byte {
	sum := sha256.Sum256([]byte(token))
	return sha256.Sum256(append(d.digest[:], sum[:]...))
}

// call makes the call, when it is its turn, and returns whom the token speaks
// for and the size of that. An error that is a [credential.Reason] is about the
// token.
func (d *desk) call(ctx context.Context, token string, now time.Time) (*credential.Identity, int, error) {
	if !d.rate.Allow() {
		return nil, 0, errors.New("the provider would be asked more often than its document allows")
	}
	select {
	case d.calls <- struct{}{}:
		defer func() { <-d.calls }()
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return nil, 0, errors.New("too many calls are waiting for the provider")
	}
	how := d.provider.GetIntrospection()
	secret, err := d.secret(how.GetSecret())
	if err != nil {
		return nil, 0, err
	}
	var said json.RawMessage
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	if err := d.client.PostForm(ctx, how.GetEndpoint(), url.UserPassword(how.GetClient(), secret), form, &said); err != nil {
		return nil, 0, err
	}
	if len(said) > maxAnswer {
		return nil, 0, errors.New("the provider's answer is too large")
	}
	id, err := d.reader.Identity(said, now)
	if errors.Is(err, credential.Malformed) { // that says nothing of the token
		return nil, 0, errors.New("the provider's answer is not one of RFC 7662, or can be read in two ways")
	}
	if err != nil {
		return nil, 0, err
	}
	return id, id.Size(len(said)), nil
}

// until is how long an answer is believed.
func (d *desk) until(id *credential.Identity, now time.Time) time.Time {
	until := now.Add(d.provider.GetIntrospection().GetCache().AsDuration())
	if !id.ValidUntil.IsZero() && id.ValidUntil.Before(until) {
		return id.ValidUntil
	}
	return until
}
