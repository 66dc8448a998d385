package sidecar

import (
	"context"
	"fmt"
	"time"
)

// alarms is how often the alarm is raised before a certificate ends: at a
// quarter of its life, and each time half of that is left.
const alarms = 6

// watchExpiry is loud when the certificate nears its end and was not renewed.
func (c *credentials) watchExpiry(ctx context.Context) error {
	for ctx.Err() == nil {
		changed := c.watch()
		s := c.current.Load()
		var alarm <-chan time.Time
		if at, ok := s.nextAlarm(time.Now()); ok {
			alarm = time.After(time.Until(at))
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-alarm:
			c.alarm(ctx, s)
		}
	}
	return nil
}

func (c *credentials) alarm(ctx context.Context, s *certificate) {
	left := time.Until(s.Expires()).Round(time.Second)
	text := fmt.Sprintf("ends in %v, at %s, and is not renewed", left, s.Expires().Format(time.RFC3339))
	if left <= 0 {
		text = fmt.Sprintf("ended at %s: no connection of this workload is taken any more", s.Expires().Format(time.RFC3339))
	}
	c.problems.set(problemCertificate, text)
	c.log.ErrorContext(ctx, "certificate not renewed in time", "spiffe_id", s.SPIFFEID(), "serial", s.Serial(),
		"expires", s.Expires(), "left", left, "err", c.failure())
}

// nextAlarm returns when to be loud next if the certificate stays.
func (s *certificate) nextAlarm(now time.Time) (time.Time, bool) {
	if s == nil {
		return time.Time{}, false
	}
	left := s.Expires().Sub(s.obtained) / 4
	for range alarms {
		if at := s.Expires().Add(-left); at.After(now) {
			return at, true
		}
		left /= 2
	}
	return s.Expires(), s.Expires().After(now)
}
