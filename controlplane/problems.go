package controlplane

import (
	"fmt"
	"time"

	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

const (
	// maxClockDifference between an agent and the control plane: Passports live
	// for a minute, and certificates may for ten seconds.
	maxClockDifference = 5 * time.Second
	// maxTrustDelay is how long a proxy may take to take a new trust, or new
	// revocations.
	maxTrustDelay = 10 * time.Second
)

// standing is what the control plane knows that proxies are judged by.
type standing struct {
	now time.Time
	// trust and revocations are the newest sequences, since when.
	trust, revocations uint64
	since, revoked     time.Time

	states map[string]ca.State
	find   func(serial string) (ca.Certificate, bool)
}

// certificateStatus is what an agent tells of its certificate; nil if it tells
// nothing.
func certificateStatus(report *chancerypb.ReportRequest) *CertificateStatus {
	if report.GetSvidSerial() == "" {
		return nil
	}
	c := &CertificateStatus{Serial: report.GetSvidSerial(), Authority: report.GetSvidAuthority()}
	if t := report.GetSvidExpires(); t != nil {
		c.Expires = t.AsTime()
	}
	if t := report.GetSvidRenews(); t != nil {
		c.Renews = t.AsTime()
	}
	return c
}

// judge completes what the agent told by what the control plane knows, and says
// what is wrong.
func (p *ProxyStatus) judge(s standing) {
	problem := func(format string, args ...any) { p.Problems = append(p.Problems, fmt.Sprintf(format, args...)) }
	if c := p.Certificate; c != nil {
		c.AuthorityState = string(s.states[c.Authority])
		if known, ok := s.find(c.Serial); ok && known.ID.String() == p.Name {
			c.Revoked = known.Revoked
		}
		if text := c.problem(s.now); text != "" {
			problem("%s", text)
		}
	}
	if !p.Connected {
		return
	}
	if p.Certificate != nil && p.Trust < s.trust && s.now.Sub(s.since) > maxTrustDelay {
		problem("it has trust %d, there is %d since %s: revocations do not reach it", p.Trust, s.trust, s.since.Format(time.RFC3339))
	}
	if p.Certificate != nil && p.Revocations < s.revocations && s.now.Sub(s.revoked) > maxTrustDelay {
		problem("it has revocations %d, there are %d since %s: they do not reach it", p.Revocations, s.revocations, s.revoked.Format(time.RFC3339))
	}
	if ahead := time.Duration(p.ClockAhead * float64(time.Second)); ahead.Abs() > maxClockDifference {
		problem("its clock is %s %s: certificates and Passports will be refused, check time synchronization on both hosts",
			ahead.Abs().Round(100*time.Millisecond), aheadOrBehind(ahead))
	}
}

// problem says what is wrong with a certificate; empty if nothing is.
func (c *CertificateStatus) problem(now time.Time) string {
	switch {
	case !c.Revoked.IsZero():
		return fmt.Sprintf("certificate %s was revoked at %s: the agent needs a new join token", c.Serial, c.Revoked.Format(time.RFC3339))
	case c.Expires.IsZero():
		return ""
	case now.After(c.Expires):
		return fmt.Sprintf("certificate %s ended at %s: the agent needs a new join token", c.Serial, c.Expires.Format(time.RFC3339))
	case c.overdue(now):
		return fmt.Sprintf("certificate %s ends at %s and should have been renewed at %s: see the agent's log",
			c.Serial, c.Expires.Format(time.RFC3339), c.Renews.Format(time.RFC3339))
	case c.AuthorityState == "":
		return fmt.Sprintf("certificate %s is of authority %s, which is not trusted", c.Serial, c.Authority)
	}
	return ""
}

// overdue reports whether renewal is late by half of the time that there was
// for it.
func (c *CertificateStatus) overdue(now time.Time) bool {
	return !c.Renews.IsZero() && now.After(c.Renews.Add(c.Expires.Sub(c.Renews)/2))
}

func aheadOrBehind(d time.Duration) string {
	if d < 0 {
		return "behind"
	}
	return "ahead"
}
