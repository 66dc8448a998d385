package demo

import (
	"context"
	"errors"
	"net/http"
)

// scene is one thing that is tried.
type scene struct {
	sends, expects string
	// play says what came, and how that differs from what was expected.
	play func(context.Context, *shop) (came string, err error)
}

type chapter struct {
	title  string
	scenes []scene
}

var chapters = []chapter{
	{"Who may come in", credentials},
	{"By what else", logins},
	{"Who speaks for whom", passports},
	{"Which workload it is", identities},
	{"Which way", paths},
	{"How much", limits},
	{"What is taken back, and why not", taken},
	{"What changes", changes},
	{"What breaks", failures},
}

// refused plays a request that must get that status while nothing reaches the
// service behind.
func refused(behind string, status int, prepare func(context.Context, *shop) (request, error)) func(context.Context, *shop) (string, error) {
	return func(ctx context.Context, s *shop) (string, error) {
		q, err := prepare(ctx, s)
		if err != nil {
			return "", err
		}
		var re reply
		reached, err := s.reaching(ctx, behind, func() (err error) {
			re, err = s.send(ctx, q)
			return err
		})
		if err != nil {
			return "", err
		}
		came, challenge := re.String(), re.header.Get("WWW-Authenticate")
		if challenge != "" {
			came += ", " + challenge
		}
		return came, errors.Join(
			expect(re.status == status, "not %d: %s", status, re.body),
			expect(status != http.StatusUnauthorized || challenge != "", "no WWW-Authenticate"),
			expect(reached == 0, "%d requests reached %s", reached, behind),
		)
	}
}
