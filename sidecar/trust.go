package sidecar

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/atomicfile"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// trustFile has a life of its own beside the last good state: an agent that
// goes back to an earlier revision does not trust again what was revoked since.
const trustFile = "trust.pb"

// trust keeps the newest Trust, on disk as well, and serves it to Envoy. It
// never goes back to an older one. It is safe for concurrent use.
type trust struct {
	path    string
	secrets *xds.Collection
	log     *slog.Logger
	// changed is called after each change.
	changed func()

	current atomic.Pointer[identity.Trust]
	// served are the sequences that Envoy was given.
	served recent[uint64]

	mu    sync.Mutex
	taken time.Time
}

// load takes over what an earlier agent left. What is damaged is not used: the
// workload must prove once more who it is, to a control plane that it can
// verify in another way.
func (t *trust) load() error {
	data, err := identity.ReadPrivate(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var m chancerypb.Trust
	if err == nil {
		err = proto.Unmarshal(data, &m)
	}
	var parsed *identity.Trust
	if err == nil {
		parsed, err = identity.ParseTrust(&m)
	}
	if err != nil {
		t.log.Error("trust on disk not used", "path", t.path, "err", err)
		return nil
	}
	return t.use(parsed)
}

// newer returns what a message says, or the current Trust if that is newer.
func (t *trust) newer(m *chancerypb.Trust) (*identity.Trust, error) {
	parsed, err := identity.ParseTrust(m)
	if err != nil {
		return nil, err
	}
	current := t.current.Load()
	switch {
	case current == nil:
		return parsed, nil
	case parsed.TrustDomain() != current.TrustDomain():
		return nil, fmt.Errorf("trust is of trust domain %q, not of %q", parsed.TrustDomain(), current.TrustDomain())
	case parsed.Sequence() > current.Sequence():
		return parsed, nil
	case parsed.Sequence() == current.Sequence() && !proto.Equal(m, current.Message()):
		return nil, fmt.Errorf("trust of sequence %d is another than the one that is held: %s", parsed.Sequence(), startAfresh)
	}
	return current, nil
}

const startAfresh = "was the certificate authority restored from a backup, or made anew? Empty the state directory and join again"

// take judges a Trust that came as a resource, and puts it to use. An older one
// is refused: who could bring it back would bring back what was revoked.
func (t *trust) take(m *chancerypb.Trust) error {
	next, err := t.newer(m)
	if err != nil {
		return err
	}
	if next.Sequence() > m.GetSequence() {
		return fmt.Errorf("trust of sequence %d is older than %d, which is held: %s", m.GetSequence(), next.Sequence(), startAfresh)
	}
	return t.adopt(next)
}

// adopt puts a Trust to use that is newer than, or is, the current one.
func (t *trust) adopt(next *identity.Trust) error {
	t.mu.Lock()
	current := t.current.Load()
	if current != nil && next.Sequence() <= current.Sequence() {
		t.mu.Unlock()
		return nil
	}
	err := t.use(next)
	if err == nil {
		t.keep(next)
		t.taken = time.Now()
	}
	t.mu.Unlock()
	if err == nil {
		t.log.Info("trust changed", "sequence", next.Sequence(), "authorities", len(next.Message().GetAuthorities()),
			"revoked", len(next.Message().GetRevoked()))
		t.changed()
	}
	return err
}

// keep writes to disk. A disk that fails does not keep a revocation from being
// obeyed.
func (t *trust) keep(next *identity.Trust) {
	data, err := proto.Marshal(next.Message())
	if err == nil {
		err = atomicfile.Write(t.path, data, 0o600)
	}
	if err != nil {
		t.log.Error("trust not written", "path", t.path, "err", err)
	}
}

// use serves a Trust to Envoy.
func (t *trust) use(next *identity.Trust) error {
	var crls []byte
	for _, a := range next.Message().GetAuthorities() {
		crls = append(crls, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: a.GetCrl()})...)
	}
	secret, err := envoy.TrustBundle(encodeCertificates(next.Roots()), crls)
	if err != nil {
		return err
	}
	r, err := xds.New(envoy.SecretBundle, secret)
	if err != nil {
		return err
	}
	t.served.put(r.Version, next.Sequence())
	t.secrets.Apply([]*xds.Resource{r})
	t.current.Store(next)
	return nil
}

// since returns when the current Trust came.
func (t *trust) since() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.taken
}
