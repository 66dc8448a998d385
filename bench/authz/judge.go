package main

import (
	"fmt"
	"net/http"
	"sync/atomic"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/passport"
)

// judge says of an answer whether it is right.
type judge func(answer) error

// wrong judges all answers, and returns how many are wrong and why the first is.
func (j judge) wrong(answers []answer) (n int64, first error) {
	var faults atomic.Int64
	var group errgroup.Group
	group.SetLimit(inFlight)
	const share = 256
	for begin := 0; begin < len(answers); begin += share {
		group.Go(func() (first error) {
			for _, a := range answers[begin:min(begin+share, len(answers))] {
				if err := j(a); err != nil {
					faults.Add(1)
					first = err
				}
			}
			return first
		})
	}
	first = group.Wait()
	return faults.Load(), first
}

// takesAnything judges a server that does not decide.
func takesAnything(a answer) error {
	_, err := a.status()
	return err
}

// decides judges a server that allows or denies.
func decides(a answer) error {
	status, err := a.status()
	if err == nil && status != a.call.status {
		err = fmt.Errorf("%s: status %d instead of %d", a.user, status, a.call.status)
	}
	return err
}

// mints judges a server whose allowed answers carry a Passport, that of the
// user who asked and of nobody else.
func mints(v *passport.Verifier) judge {
	return func(a answer) error {
		if err := decides(a); err != nil {
			return err
		}
		tokens := a.added("txn-token")
		if a.call.status != http.StatusOK {
			if len(tokens) > 0 {
				return fmt.Errorf("%s: a denial with a Passport", a.user)
			}
			return nil
		}
		if len(tokens) != 1 {
			return fmt.Errorf("%s: %d Passports", a.user, len(tokens))
		}
		p, err := v.Verify(tokens[0])
		if err == nil && p.Subject != a.user {
			err = fmt.Errorf("%s: Passport of %s", a.user, p.Subject)
		}
		return err
	}
}

// status returns what the client would get, 200 where it is let through.
func (a answer) status() (int, error) {
	r, err := a.decode()
	if err != nil {
		return 0, err
	}
	ok := r.GetOkResponse() != nil
	if ok != (codes.Code(r.GetStatus().GetCode()) == codes.OK) {
		return 0, fmt.Errorf("answer contradicts itself: %v", r)
	}
	if ok {
		return http.StatusOK, nil
	}
	return int(r.GetDeniedResponse().GetStatus().GetCode()), nil
}

func (a answer) decode() (*authv3.CheckResponse, error) {
	r := &authv3.CheckResponse{}
	return r, proto.Unmarshal(a.response, r)
}

// added returns the values of a header that the answer adds to the request.
func (a answer) added(name string) (values []string) {
	r, err := a.decode()
	if err != nil {
		return nil
	}
	for _, h := range r.GetOkResponse().GetHeaders() {
		if h.GetHeader().GetKey() == name {
			values = append(values, h.GetHeader().GetValue()+string(h.GetHeader().GetRawValue()))
		}
	}
	return values
}
