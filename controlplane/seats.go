package controlplane

import "fmt"

// seats are the connections that one proxy has streams on. There is one, or two
// for a moment. When there are more for long, two agents have one key, and
// neither must speak for the other.
type seats map[*connection]*seat

// seat is one connection, and the sequence of the trust that was told on it.
type seat struct {
	streams int
	told    bool
	trust   uint64
}

// take notes a stream.
func (s seats) take(on *connection) {
	if s[on] == nil {
		s[on] = &seat{}
	}
	s[on].streams++
}

// leave notes that a stream ended.
func (s seats) leave(on *connection) {
	if s[on].streams--; s[on].streams == 0 {
		delete(s, on)
	}
}

// tell notes what was told on a connection; without a stream it counts only
// where nobody has one.
func (s seats) tell(on *connection, trust uint64) {
	if seat := s[on]; seat != nil {
		seat.told, seat.trust = true, trust
	}
}

// problems says that there are several.
func (s seats) problems() []string {
	if len(s) < 2 {
		return nil
	}
	return []string{fmt.Sprintf("%d agents are connected with this one's certificates: unless it is just connecting again, its key was stolen: chancery revoke --serial", len(s))}
}

// settle has the report of p tell the oldest trust of all its connections. The
// caller holds the book's lock.
func (p *proxy) settle() {
	first := true
	for _, s := range p.seats {
		switch {
		case !s.told || p.report == nil:
			continue
		case first, s.trust < p.report.GetTrustSequence():
			p.report.TrustSequence, first = s.trust, false
		}
	}
}
