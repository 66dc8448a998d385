package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/chancery-mesh/chancery/examples/shop/service"
	"github.com/chancery-mesh/chancery/internal/rig"
	"github.com/chancery-mesh/chancery/passport"
)

// shop is the running mesh as its clients see it.
type shop struct {
	*rig.Rig
	client *http.Client
	// token belongs to ada, who is in sales.
	token string
}

// newShop returns once a request comes through all of the mesh.
func newShop(ctx context.Context, r *rig.Rig) (*shop, error) {
	token, err := r.Issuer.Token(ctx, nil)
	if err != nil {
		return nil, err
	}
	s := &shop{Rig: r, client: &http.Client{Timeout: 10 * time.Second}, token: token}
	for _, ready := range []request{
		{path: "/orders/7", token: token},
		{method: http.MethodPost, path: "/payments/7/refund", token: token},
	} {
		if err := s.eventually(ctx, 15*time.Second, ready, http.StatusOK); err != nil {
			return nil, r.Explain(ctx, err)
		}
	}
	return s, nil
}

// request is what a client sends.
type request struct {
	// method, by default GET.
	method string
	// path goes out as it is written.
	path     string
	token    string
	passport string
	// via is the address it is sent to, by default the gateway's; host is the
	// service that a workload asks its sidecar for.
	via, host string
}

// reply is what comes back.
type reply struct {
	status int
	header http.Header
	body   string
	// answer is the service's own, if the status is 200.
	answer service.Answer
}

func (r reply) String() string { return fmt.Sprint(r.status) }

func (s *shop) send(ctx context.Context, q request) (reply, error) {
	if q.via == "" {
		q.via = s.Gateway.Listen.String()
	}
	r := &http.Request{
		Method: q.method, Host: q.host, Header: http.Header{},
		URL: &url.URL{Scheme: "http", Host: q.via, Opaque: q.path}, // Opaque is not tidied
	}
	if q.token != "" {
		r.Header.Set("Authorization", "Bearer "+q.token)
	}
	if q.passport != "" {
		r.Header.Set(passport.Header, q.passport)
	}
	resp, err := s.client.Do(r.WithContext(ctx))
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, err
	}
	re := reply{status: resp.StatusCode, header: resp.Header, body: string(body)}
	if re.status == http.StatusOK {
		err = json.Unmarshal(body, &re.answer)
	}
	return re, err
}

// eventually sends until that status comes.
func (s *shop) eventually(ctx context.Context, within time.Duration, q request, status int) error {
	return rig.Until(ctx, within, func(ctx context.Context) error {
		re, err := s.send(ctx, q)
		if err != nil {
			return err
		}
		if re.status != status {
			return fmt.Errorf("%s: %d %s", q.path, re.status, re.body)
		}
		return nil
	})
}

// reaching counts the requests that reach a service while do runs.
func (s *shop) reaching(ctx context.Context, name string, do func() error) (int, error) {
	before, err := s.Received(ctx, name)
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := s.Received(ctx, name)
	return after.Total - before.Total, err
}

// traffic asks for an order all the time, which needs two services.
func (s *shop) traffic(ctx context.Context) *rig.Traffic {
	return rig.Load{
		Rate:   50,
		URL:    fmt.Sprintf("http://%s/orders/7", s.Gateway.Listen),
		Header: http.Header{"Authorization": {"Bearer " + s.token}},
	}.Start(ctx)
}

// expect is an error unless ok.
func expect(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}
