package demo

import (
	"cmp"
	"context"
	"crypto/tls"
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
	// tls is how clients from outside speak to the public gateway.
	tls *tls.Config
	// thief is the certificate that was stolen from orders.
	thief *tls.Certificate
	// token belongs to ada, who is in sales.
	token string
	// key is a till's.
	key string
}

// newShop returns once a request comes through all of the mesh.
func newShop(ctx context.Context, r *rig.Rig) (*shop, error) {
	token, err := r.Issuer.Token(ctx, nil)
	if err != nil {
		return nil, err
	}
	outside, err := r.TLS("")
	if err != nil {
		return nil, err
	}
	s := &shop{Rig: r, tls: outside, token: token}
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
	// idToken and apiKey are in headers of their own; user and password are of
	// Basic authentication.
	idToken, apiKey string
	user, password  string
	// via is the address that a workload sends it to in the clear, instead of
	// the public gateway; host is the service that it asks for there.
	via, host string
	// at is who is asked over TLS, by default the public gateway, by somebody
	// with this certificate and this trust.
	at  *rig.Agent
	tls *tls.Config
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
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: cmp.Or(q.tls, s.tls),
		// Sidecars speak nothing else.
		ForceAttemptHTTP2: q.tls != nil && len(q.tls.NextProtos) > 0,
	}}
	return s.sendBy(ctx, client, q)
}

// sendBy sends by a client of the caller's.
func (s *shop) sendBy(ctx context.Context, client *http.Client, q request) (reply, error) {
	scheme := "http"
	if q.via == "" {
		scheme, q.via = "https", cmp.Or(q.at, s.Gateway).Listen.String()
	}
	r := &http.Request{
		Method: q.method, Host: q.host, Header: http.Header{},
		URL: &url.URL{Scheme: scheme, Host: q.via, Opaque: q.path}, // Opaque is not tidied
	}
	if q.token != "" {
		r.Header.Set("Authorization", "Bearer "+q.token)
	}
	if q.idToken != "" {
		r.Header.Set("X-Id-Token", q.idToken)
	}
	if q.apiKey != "" {
		r.Header.Set("X-Api-Key", q.apiKey)
	}
	if q.user != "" {
		r.SetBasicAuth(q.user, q.password)
	}
	if q.passport != "" {
		r.Header.Set(passport.Header, q.passport)
	}
	resp, err := client.Do(r.WithContext(ctx))
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
		Rate: 50, URL: s.Gateway.URL("/orders/7"), TLS: s.tls,
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
