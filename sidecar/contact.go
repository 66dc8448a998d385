package sidecar

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/chancery-mesh/chancery/internal/atomicfile"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// contactFile remembers the last contact for the next agent: who starts again
// and again without a control plane is cut off all the same.
const contactFile = "contact"

// contact is when nothing had passed the agent by for certain: the control
// plane, asked then, had nothing newer than what is in force here. That proves
// more than an open stream: on a connection that is dead and does not say so, or
// to a control plane that hangs, there is no answer. It is safe for concurrent
// use.
type contact struct {
	path string
	log  *slog.Logger
	at   atomic.Pointer[time.Time]
}

// load takes over the contact of an earlier agent, unless that is yet to come:
// the clock was set then.
func (c *contact) load() {
	text, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var at time.Time
	if err == nil {
		err = at.UnmarshalText(text)
	}
	if err != nil || at.After(time.Now()) {
		c.log.Warn("last contact with the control plane not known", "path", c.path, "err", err)
		return
	}
	c.at.Store(&at)
}

// heard takes the answer to a report that was sent at a time.
func (a *Agent) heard(sent time.Time, answer *chancerypb.ReportResponse) {
	trust := a.credentials.Trust()
	if trust == nil || trust.Sequence() < answer.GetTrustSequence() || a.revocations.sequence() < answer.GetRevocationsSequence() {
		return // what is newer is under way
	}
	a.metrics.contact.Set(float64(sent.UnixMilli()) / 1000)
	a.contact.made(sent)
}

// made notes that contact was made at a time. The file is not waited for: if it
// is lost, so is nothing but patience.
func (c *contact) made(at time.Time) {
	c.at.Store(&at)
	text, err := at.MarshalText()
	if err == nil {
		err = atomicfile.Put(c.path, text, 0o600)
	}
	if err != nil {
		c.log.Error("contact with the control plane not written", "path", c.path, "err", err)
	}
}

// last returns when contact was made; zero for never.
func (c *contact) last() time.Time {
	if at := c.at.Load(); at != nil {
		return *at
	}
	return time.Time{}
}
