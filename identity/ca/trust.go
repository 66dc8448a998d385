package ca

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// trustFile holds the Trust that was published last. Its sequence is on disk
// before anybody sees it, so that it only grows.
const trustFile = "trust.binpb"

// Trust returns what certificates are verified against now. It is immutable,
// and the same until [CA.Changed] says otherwise.
func (ca *CA) Trust() *chancerypb.Trust { return ca.trust.Load() }

// Changed returns a channel that is closed at the next change of [CA.Trust].
// Ask for it before reading Trust, so as not to miss one.
func (ca *CA) Changed() <-chan struct{} { return *ca.changed.Load() }

func (ca *CA) trustPath() string { return filepath.Join(ca.cfg.Dir, trustFile) }

// startStride is the first stride after a start: the process before may have
// published Trusts that it could not write down, and nobody takes another with
// the same sequence.
const startStride = 1000

// readTrust reads the Trust that was published last.
func (ca *CA) readTrust() error {
	data, err := identity.ReadPrivate(ca.trustPath())
	if errors.Is(err, fs.ErrNotExist) {
		if a := ca.state.authorities; len(a) > 1 || a[0].Sequence > 1 || ca.ledger.size > 0 {
			return fmt.Errorf("%s is missing, and agents would refuse a Trust that begins anew: restore it from a backup", ca.trustPath())
		}
		return nil
	}
	if err != nil {
		return err
	}
	last := &chancerypb.Trust{}
	if err := proto.Unmarshal(data, last); err != nil || last.GetTrustDomain() != ca.cfg.TrustDomain {
		return fmt.Errorf("%s cannot be read: restore it from a backup", ca.trustPath())
	}
	ca.trust.Store(last)
	ca.stride = startStride
	return nil
}

// publish makes Trust say what authorities and ledger say, on disk first. It
// does nothing when it does already. The caller holds steps.
func (ca *CA) publish() error { return ca.publishTrust(false) }

// errTrustUnsaved says that Trust cannot be written down.
var errTrustUnsaved = errors.New("not on disk")

// publishTrust is publish; anyway does it also when the disk does not take it,
// which is an error still.
func (ca *CA) publishTrust(anyway bool) error {
	last := ca.Trust()
	next, err := ca.currentTrust(last)
	if err != nil {
		return fmt.Errorf("publish trust: %w", err)
	}
	next.Sequence = last.GetSequence()
	isNew := last == nil || !proto.Equal(last, next)
	if !isNew && !ca.trustUnsaved {
		return nil
	}
	if isNew {
		next.Sequence += ca.stride
	}
	data, err := proto.Marshal(next)
	if err == nil {
		err = ca.cfg.disk.write(ca.trustPath(), data)
	}
	if err != nil {
		err = fmt.Errorf("publish trust: %w: %w", errTrustUnsaved, err)
	}
	if err != nil && !anyway {
		return err
	}
	ca.trustUnsaved, ca.stride = err != nil, 1
	if isNew {
		ca.trust.Store(next)
		changed := make(chan struct{})
		close(*ca.changed.Swap(&changed))
	}
	return err
}

// currentTrust returns the Trust of now, with the revocation lists of the last
// where they need no change.
func (ca *CA) currentTrust(last *chancerypb.Trust) (*chancerypb.Trust, error) {
	ca.mu.RLock()
	st := ca.state
	revoked := ca.certificates.list(func(c *Certificate) bool { return !c.Revoked.IsZero() })
	ca.mu.RUnlock()
	next := &chancerypb.Trust{TrustDomain: st.trustDomain}
	lists := map[string][]byte{}
	for _, a := range last.GetAuthorities() {
		lists[a.GetId()] = a.GetCrl()
	}
	for _, i := range st.authorities {
		if !i.trusted() {
			continue
		}
		crl, err := ca.crl(i, revoked, lists[i.ID], last.GetSequence()+ca.stride)
		if err != nil {
			return nil, err
		}
		next.Authorities = append(next.Authorities, &chancerypb.Authority{Id: i.ID, Crl: crl, Tainted: i.State == Tainted})
		if !slices.ContainsFunc(next.Roots, func(der []byte) bool { return bytes.Equal(der, i.root.Raw) }) {
			next.Roots = append(next.Roots, i.root.Raw)
		}
	}
	slices.SortFunc(revoked, func(a, b Certificate) int { return bytes.Compare(a.Fingerprint[:], b.Fingerprint[:]) })
	for _, c := range revoked {
		next.Revoked = append(next.Revoked, &chancerypb.RevokedCertificate{
			Fingerprint: c.Fingerprint[:], SpiffeId: c.SPIFFEID, Expires: timestamppb.New(c.Expires),
		})
	}
	return next, nil
}
