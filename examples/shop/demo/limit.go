package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/chancery-mesh/chancery/internal/rig"
)

var limits = []scene{
	{"POST /payments/7 seven times by grace, who has five a minute", "5 × 200, then 429 with Retry-After", tooMany},
	{"POST /payments/7 by ada meanwhile", "200, she has her own five", otherUser},
	{"POST /stocktaking eight times at once, two may run", "2 × 200, 6 × 503, 2 reach inventory", overload},
}

func tooMany(ctx context.Context, s *shop) (string, error) {
	token, err := s.Issuer.Token(ctx, map[string]any{"sub": "grace"})
	if err != nil {
		return "", err
	}
	statuses := map[int]int{}
	var last reply
	reached, err := s.reaching(ctx, "payments", func() (err error) {
		for range 7 {
			if last, err = s.send(ctx, request{method: http.MethodPost, path: "/payments/7", token: token}); err != nil {
				return err
			}
			statuses[last.status]++
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	wait := last.header.Get("Retry-After")
	return fmt.Sprintf("%d × 200, %d × 429, Retry-After %s", statuses[200], statuses[429], wait), errors.Join(
		expect(statuses[200] == 5 && statuses[429] == 2, "statuses %v", statuses),
		expect(wait != "", "no Retry-After"),
		expect(reached == 5, "%d requests reached payments", reached),
	)
}

func otherUser(ctx context.Context, s *shop) (string, error) {
	re, err := s.send(ctx, request{method: http.MethodPost, path: "/payments/7", token: s.token})
	return re.String(), errors.Join(err, expect(re.status == http.StatusOK, "not 200: %s", re.body))
}

// overload fills a route's breaker and looks at the route beside it.
func overload(ctx context.Context, s *shop) (string, error) {
	const sent, may = 8, 2
	const slow = "POST /stocktaking"
	before, err := s.Received(ctx, "inventory")
	if err != nil {
		return "", err
	}
	replies := make([]reply, sent)
	errs := make([]error, sent)
	var requests sync.WaitGroup
	for n := range sent {
		requests.Go(func() {
			replies[n], errs[n] = s.send(ctx, request{method: http.MethodPost, path: "/stocktaking", token: s.token})
		})
	}
	var neighbour reply
	err = rig.Until(ctx, time.Second, func(ctx context.Context) error {
		now, err := s.Received(ctx, "inventory")
		return errors.Join(err, expect(now.Requests[slow] == before.Requests[slow]+may, "the slow route is not full"))
	})
	if err == nil { // the route is full right now
		neighbour, err = s.send(ctx, request{path: "/stock/7", token: s.token})
	}
	requests.Wait()
	if err := errors.Join(append(errs, err)...); err != nil {
		return "", err
	}
	statuses := map[int]int{}
	for _, re := range replies {
		statuses[re.status]++
	}
	after, err := s.Received(ctx, "inventory")
	reached := after.Requests[slow] - before.Requests[slow]
	return fmt.Sprintf("%d × 200, %d × 503; GET /stock/7 meanwhile %d", statuses[200], statuses[503], neighbour.status), errors.Join(err,
		expect(statuses[200] == may && statuses[503] == sent-may, "statuses %v", statuses),
		expect(reached == may, "%d reached inventory", reached),
		expect(neighbour.status == http.StatusOK, "the route beside it suffers"),
	)
}
