package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/internal/rig"
)

var changes = []scene{
	{"a second inventory joins while 50 requests/s flow", "it takes its share, 0 failed", joins},
	{"it leaves again while 50 requests/s flow", "nothing goes there, 0 failed", leaves},
	{"orders.yaml now wants the group support, and not sales", "ada gets 403, and 200 once it is undone", documentChanged},
	{"inventory.yaml now has a misspelt key, while traffic flows", "refused, said by status; 0 failed", documentBroken},
}

const second = "inventory-2"

func joins(ctx context.Context, s *shop) (string, error) {
	traffic := s.traffic(ctx)
	instance, err := s.StartInstance(ctx, "inventory", second)
	if err == nil {
		err = rig.Until(ctx, 5*time.Second, func(ctx context.Context) error {
			received, err := instance.Received(ctx)
			return errors.Join(err, expect(received.Total >= 10, "only %d requests reached it", received.Total))
		})
	}
	return s.judge(traffic.Stop(), err)
}

func leaves(ctx context.Context, s *shop) (string, error) {
	instances := s.Instances("inventory")
	last := instances[len(instances)-1]
	if last.ID != second {
		return "", errors.New("it never joined")
	}
	traffic := s.traffic(ctx)
	err := s.StopInstance(ctx, last)
	return s.judge(traffic.Stop(), err)
}

// judge says how a load went that must not have failed once.
func (s *shop) judge(samples rig.Samples, err error) (string, error) {
	failed := samples.Failed()
	came := fmt.Sprintf("%d requests, %d failed", len(samples), len(failed))
	if len(failed) > 0 {
		err = errors.Join(err, fmt.Errorf("the first: %s\n%s", failed[0].Fault, s.Trace(failed[0].RequestID)))
	}
	return came, errors.Join(err, expect(len(samples) > 0, "no traffic"))
}

func documentChanged(ctx context.Context, s *shop) (came string, err error) {
	undo, err := s.Documents.Edit("orders.yaml", "'sales' in user.groups || 'support' in user.groups", "'support' in user.groups")
	if err != nil {
		return "", err
	}
	start, read := time.Now(), request{path: "/orders/7", token: s.token}
	refused := s.eventually(ctx, 5*time.Second, read, http.StatusForbidden)
	took := time.Since(start)
	err = errors.Join(refused, undo(), s.eventually(ctx, 5*time.Second, read, http.StatusOK))
	return fmt.Sprintf("403 after %s, then 200", round(took)), err
}

func documentBroken(ctx context.Context, s *shop) (string, error) {
	traffic := s.traffic(ctx)
	undo, err := s.Documents.Edit("inventory.yaml", "timeout: 2s", "timout: 2s")
	if err != nil {
		return "", err
	}
	shown := s.statusTells(ctx, true)
	came, err := s.judge(traffic.Stop(), errors.Join(shown, undo()))
	return came + "; " + misspelt, errors.Join(err, s.statusTells(ctx, false))
}

// misspelt is what is said of the broken document.
const misspelt = `routes[0].timout: is no key here: did you mean "timeout"?`

// statusTells waits until `chancery status` tells of the broken document, or no
// longer does.
func (s *shop) statusTells(ctx context.Context, want bool) error {
	return rig.Until(ctx, 5*time.Second, func(ctx context.Context) error {
		// Its exit code is 1 as long as a document is broken.
		status, err := s.Chancery(ctx, "status", "--run", s.RunDir())
		if strings.Contains(status, misspelt) == want {
			return nil
		}
		return errors.Join(err, errors.New("chancery status tells something else"))
	})
}
