package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

var paths = []scene{
	{"GET /orders//7 and its like, with ada's token", "400 each, nothing reaches orders", ambiguous},
	{"GET /orders/7/items, which no document names, with her token", "404", unknown("/orders/7/items")},
	{"GET /-/received, which orders has but no document names", "404", unknown("/-/received")},
}

func ambiguous(ctx context.Context, s *shop) (string, error) {
	tricks := []string{
		"/orders//7", "/orders/./7", "/orders/x/../7", "/orders/%2e%2e/orders/7", "/orders%2f7", "/orders/%37", "/orders/7;a=b", "/orders\\7",
	}
	var wrong []error
	reached, err := s.reaching(ctx, "orders", func() error {
		for _, path := range tricks {
			re, err := s.send(ctx, request{path: path, token: s.token})
			if err != nil {
				return err
			}
			wrong = append(wrong, expect(re.status == http.StatusBadRequest, "%s: %d", path, re.status))
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	refused := 0
	for _, err := range wrong {
		if err == nil {
			refused++
		}
	}
	return fmt.Sprintf("%d of %d paths got 400", refused, len(tricks)),
		errors.Join(append(wrong, expect(reached == 0, "%d requests reached orders", reached))...)
}

func unknown(path string) func(context.Context, *shop) (string, error) {
	return refused("orders", http.StatusNotFound, func(_ context.Context, s *shop) (request, error) {
		return request{path: path, token: s.token}, nil
	})
}
