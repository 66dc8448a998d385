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
	return judge(traffic.Stop(), err)
}

func leaves(ctx context.Context, s *shop) (string, error) {
	instances := s.Instances("inventory")
	last := instances[len(instances)-1]
	if last.ID != second {
		return "", errors.New("it never joined")
	}
	traffic := s.traffic(ctx)
	err := s.StopInstance(ctx, last)
	return judge(traffic.Stop(), err)
}

// judge says how a load went that must not have failed once.
func judge(samples rig.Samples, err error) (string, error) {
	failed := samples.Failed()
	came := fmt.Sprintf("%d requests, %d failed", len(samples), len(failed))
	if len(failed) > 0 {
		err = errors.Join(err, fmt.Errorf("the first: %s", failed[0].Fault))
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
	var said string
	shown := rig.Until(ctx, 5*time.Second, func(ctx context.Context) error {
		status, err := s.Chancery(ctx, "status", "--run", s.RunDir())
		said = lineWith(status, "timout")
		return errors.Join(err, expect(said != "", "chancery status does not show it:\n%s", status))
	})
	came, err := judge(traffic.Stop(), errors.Join(shown, undo()))
	healed := rig.Until(ctx, 5*time.Second, func(ctx context.Context) error {
		status, err := s.Chancery(ctx, "status", "--run", s.RunDir())
		return errors.Join(err, expect(lineWith(status, "timout") == "", "chancery status still shows it"))
	})
	return came + "; " + said, errors.Join(err, healed)
}

// lineWith returns the line of text that holds word.
func lineWith(text, word string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}
