package ca

import (
	"fmt"
	"slices"
	"time"
)

// Prepare makes the next authority, which Trust has from now on and which
// signs once it is activated. newRoot asks for a new root as well.
func (ca *CA) Prepare(newRoot bool) (Authority, error) {
	var made Authority
	err := ca.step("prepare authority", func(next *state, now time.Time, shown sequences) error {
		for _, i := range next.authorities {
			if i.State == Prepared && i.NotAfter.After(now) {
				return fmt.Errorf("%s is prepared already: activate it, or revoke it, first", i.ID)
			}
		}
		i, err := ca.newAuthority(next, newRoot)
		if err != nil {
			return err
		}
		i = i.with(Prepared, now, shown.next)
		next.authorities = append(next.authorities, i)
		made = i.Authority
		return nil
	})
	return made, err
}

// Activate lets a prepared authority sign, instead of the active one, which is
// old from then on.
func (ca *CA) Activate(id string) error {
	// Trust says nothing of who signs: the one of now shows it as well.
	return ca.step("activate authority", func(next *state, now time.Time, shown sequences) error {
		at, err := next.find(id)
		if err != nil {
			return err
		}
		switch i := next.authorities[at]; {
		case i.State != Prepared:
			return fmt.Errorf("%s is %s: only a prepared authority can be activated; prepare one first", id, i.State)
		case !i.NotAfter.After(now):
			return fmt.Errorf("%s ended at %v: prepare another first", id, i.NotAfter)
		}
		for n, i := range next.authorities {
			if i.State == Active {
				next.authorities[n] = i.with(Old, now, shown.now)
			}
		}
		next.authorities[at] = next.authorities[at].with(Active, now, shown.now)
		return nil
	})
}

// Taint has everybody whose certificate is of an old authority renew now.
func (ca *CA) Taint(id string) error {
	return ca.step("taint authority", func(next *state, now time.Time, shown sequences) error {
		at, err := next.find(id)
		if err != nil {
			return err
		}
		switch i := next.authorities[at]; i.State {
		case Old:
			next.authorities[at] = i.with(Tainted, now, shown.next)
			return nil
		case Active:
			return fmt.Errorf("%s is active: prepare and activate another first", id)
		case Prepared:
			return fmt.Errorf("%s is prepared and has signed nothing: revoke it, or activate it", id)
		default:
			return fmt.Errorf("%s is %s already", id, i.State)
		}
	})
}

// Revoke ends the trust in all that a tainted authority signed, or in a
// prepared one. Its private key is forgotten.
func (ca *CA) Revoke(id string) error {
	return ca.step("revoke authority", func(next *state, now time.Time, shown sequences) error {
		at, err := next.find(id)
		if err != nil {
			return err
		}
		switch i := next.authorities[at]; i.State {
		case Tainted, Prepared:
			next.authorities[at] = i.with(Revoked, now, shown.next)
			return nil
		case Active:
			return fmt.Errorf("%s is active: prepare and activate another, and taint this one, first", id)
		case Old:
			return fmt.Errorf("%s is old, and certificates of it may be in use: taint it first", id)
		default:
			return fmt.Errorf("%s is %s already", id, i.State)
		}
	})
}

// sequences are those of the Trust that is published, and of the next one.
type sequences struct{ now, next uint64 }

// step changes the authorities: on disk, in memory, and in Trust. edit gets a
// copy to change, and the sequences of what shows it.
func (ca *CA) step(what string, edit func(next *state, now time.Time, shown sequences) error) error {
	ca.steps.Lock()
	defer ca.steps.Unlock()
	if ca.closed {
		return fmt.Errorf("%s: %w", what, errClosed)
	}
	if err := ca.publish(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	current := ca.snapshot()
	next := &state{trustDomain: current.trustDomain, root: current.root, authorities: slices.Clone(current.authorities)}
	now := ca.cfg.Now()
	shown := ca.Trust().GetSequence()
	if err := edit(next, now, sequences{now: shown, next: shown + ca.stride}); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := ca.replace(next); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := ca.publish(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	ca.cfg.Logger.Info("authorities changed", "step", what, "sequence", ca.Trust().GetSequence())
	return nil
}

// replace makes next the state, on disk first.
func (ca *CA) replace(next *state) error {
	if err := ca.store.write(next); err != nil {
		return err
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.state = next
	return nil
}
