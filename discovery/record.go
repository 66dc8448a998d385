package discovery

import "time"

// record is what a Keeper knows of one service.
type record struct {
	// update was handed out last; its Service is empty before the first.
	update Update
	// index of the last answer that could be believed.
	index uint64
	// reason is what was announced last.
	reason string
	// absent holds the kept instances that good answers lack.
	absent map[string]absence
}

type absence struct {
	// since when every answer was good and lacked the instance.
	since time.Time
	// mass says that it went with too many others to be judged again by the
	// next answer.
	mass bool
}

// known reports whether anything was ever believed of the service.
func (r *record) known() bool { return r.update.Service != "" }

// doubt returns why an answer must not be believed in anything, or "". What
// ACLs let through is true as far as it goes.
func (r *record) doubt(a Answer) string {
	if d := a.Doubt(); d != "" && d != ReasonFiltered {
		return d
	}
	if a.Index < r.index {
		return ReasonBackward
	}
	return ""
}

// restart lets only answers from now on speak against kept instances.
func (r *record) restart(now time.Time) {
	for id, a := range r.absent {
		a.since = now
		r.absent[id] = a
	}
}

// keep notes that instances are absent: as a says, but those that were so
// before are since then.
func (r *record) keep(instances []Instance, before map[string]absence, a absence) {
	for _, i := range instances {
		noted := a
		if earlier, ok := before[i.ID]; ok {
			noted.since = earlier.since
		}
		r.absent[i.ID] = noted
	}
}
