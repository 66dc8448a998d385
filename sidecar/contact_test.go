package sidecar_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/sidecar"
)

func TestContactIsRemembered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if last := sidecar.LoadContact(dir).Last(); !last.IsZero() {
		t.Errorf("first contact at %v", last)
	}
	at := time.Now().Add(-time.Hour)
	c := sidecar.LoadContact(dir)
	c.Made(at)
	if again := sidecar.LoadContact(dir); !again.Last().Equal(at) || !c.Last().Equal(at) {
		t.Errorf("contact at %v, want %v", again.Last(), at)
	}
	assertPrivate(t, filepath.Join(dir, "contact"))
	c.Made(time.Now().Add(time.Hour)) // by a clock that was wrong
	if last := sidecar.LoadContact(dir).Last(); !last.IsZero() {
		t.Errorf("contact that is yet to come, at %v", last)
	}
	check(t, os.WriteFile(filepath.Join(dir, "contact"), []byte("yesterday"), 0o600))
	if last := sidecar.LoadContact(dir).Last(); !last.IsZero() {
		t.Errorf("contact at %v of a file that says nothing", last)
	}
}

// moodyControlPlane answers reports, refuses them, or is silent.
type moodyControlPlane struct {
	chancerypb.ControlPlaneClient
	answer atomic.Pointer[func(context.Context) error]
}

// become changes how it answers.
func (m *moodyControlPlane) become(answer func(context.Context) error) { m.answer.Store(&answer) }

func well(context.Context) error { return nil }

func (m *moodyControlPlane) Report(ctx context.Context, _ *chancerypb.ReportRequest, _ ...grpc.CallOption) (*chancerypb.ReportResponse, error) {
	return &chancerypb.ReportResponse{}, (*m.answer.Load())(ctx)
}

// silence is what a connection that is dead and does not know it answers.
func silence(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// An answer proves contact as of when it was asked for; silence and errors do
// not. Contact is back soon after the control plane, and at once with its stream.
func TestContact(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const every = 3 * time.Second
		cp := &moodyControlPlane{}
		cp.become(well)
		var contact atomic.Pointer[time.Time]
		r := sidecar.NewReporter(cp, every, func(sent time.Time, _ *chancerypb.ReportResponse) { contact.Store(&sent) })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = r.Run(ctx) }()
		after := func(d time.Duration) time.Duration {
			time.Sleep(d)
			synctest.Wait()
			return time.Since(*contact.Load())
		}
		for range 10 {
			if age := after(time.Second); age > every+time.Second {
				t.Errorf("contact is %v ago", age)
			}
		}
		for name, mood := range map[string]func(context.Context) error{
			"silent": silence,
			"away":   func(context.Context) error { return errors.New("connection refused") },
			"slow": func(ctx context.Context) error {
				time.Sleep(time.Second)
				return ctx.Err()
			},
		} {
			cp.become(mood)
			before := *contact.Load()
			age := after(time.Minute)
			switch {
			case name == "slow":
				if age < time.Second || age > every+3*time.Second {
					t.Errorf("%s: contact is %v ago", name, age)
				}
			case contact.Load().Sub(before) > every+time.Second || age < time.Minute-every:
				t.Errorf("%s: contact is %v ago", name, age)
			}
			cp.become(well)
			if name == "away" {
				r.Touch()
				if age := after(100 * time.Millisecond); age > 100*time.Millisecond {
					t.Errorf("with the stream back, contact is %v ago", age)
				}
			}
			if age := after(8 * time.Second); age > every+time.Second {
				t.Errorf("%s: after that, contact is %v ago", name, age)
			}
		}
	})
}
