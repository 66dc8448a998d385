package controlplane

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/chancery-mesh/chancery/extauthz/provider"
	"github.com/chancery-mesh/chancery/identity"
)

// AdminClient asks a running control plane over its admin socket. What it
// refuses is an [AnswerError], or a [WaitingError].
type AdminClient struct{ http *http.Client }

// AnswerError is the control plane's answer that it does not do something, as
// opposed to no answer.
type AnswerError struct {
	// Status of HTTP: 503 says that it may do it later.
	Status int
	Text   string
}

func (e *AnswerError) Error() string { return e.Text }

// NewAdminClient returns a client of the control plane that runs in runDir.
func NewAdminClient(runDir string) *AdminClient {
	path := AdminSocket(runDir)
	return &AdminClient{http: &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			},
		},
	}}
}

// awaitEvery is how often a client tries that waits for the control plane.
const awaitEvery = 100 * time.Millisecond

// Await waits until the control plane answers and has a certificate authority,
// or ctx ends; then it returns what was wrong last.
func (c *AdminClient) Await(ctx context.Context) (last error) {
	for {
		_, err := c.Authority(ctx)
		if ctx.Err() != nil { // that says less than what was wrong before
			return cmp.Or(last, err)
		}
		last = err
		answer, answered := errors.AsType[*AnswerError](err)
		if err == nil || answered && answer.Status != http.StatusServiceUnavailable {
			return err
		}
		select {
		case <-ctx.Done():
			return last
		case <-time.After(awaitEvery):
		}
	}
}

// Status returns how the control plane is.
func (c *AdminClient) Status(ctx context.Context) (Status, error) {
	return ask[Status](ctx, c, http.MethodGet, "/status", nil)
}

// Proxies returns how each proxy stands, sorted by name and instance.
func (c *AdminClient) Proxies(ctx context.Context) ([]ProxyStatus, error) {
	return ask[[]ProxyStatus](ctx, c, http.MethodGet, "/proxies", nil)
}

// Instances returns where the used services run, sorted.
func (c *AdminClient) Instances(ctx context.Context) ([]InstanceStatus, error) {
	return ask[[]InstanceStatus](ctx, c, http.MethodGet, "/instances", nil)
}

// Identities returns the agents that have a good certificate, sorted by name.
func (c *AdminClient) Identities(ctx context.Context) ([]IdentityStatus, error) {
	return ask[[]IdentityStatus](ctx, c, http.MethodGet, "/identities", nil)
}

// Authority returns how the certificate authority is.
func (c *AdminClient) Authority(ctx context.Context) (AuthorityStatus, error) {
	return ask[AuthorityStatus](ctx, c, http.MethodGet, "/ca", nil)
}

// PrepareAuthority makes the next authority, and a new root if asked to.
func (c *AdminClient) PrepareAuthority(ctx context.Context, newRoot bool) (AuthorityStatus, error) {
	return ask[AuthorityStatus](ctx, c, http.MethodPost, "/ca/prepare", prepareRequest{NewRoot: newRoot})
}

// StepAuthority takes another step of the rotation of an authority, which may be
// empty when there is only one that it can be. Without force it is refused with
// a [WaitingError] as long as proxies are not ready for it.
func (c *AdminClient) StepAuthority(ctx context.Context, step Step, authority string, force bool) (AuthorityStatus, error) {
	return ask[AuthorityStatus](ctx, c, http.MethodPost, "/ca/"+string(step), stepRequest{Authority: authority, Force: force})
}

// Revoke revokes certificates or credentials, and waits up to two seconds for the
// proxies.
func (c *AdminClient) Revoke(ctx context.Context, r Revocation) (RevocationStatus, error) {
	return ask[RevocationStatus](ctx, c, http.MethodPost, "/revoke", r)
}

// RefreshKeys fetches the keys of an identity provider now, or of all if name is
// empty, and returns how they are then.
func (c *AdminClient) RefreshKeys(ctx context.Context, name string) ([]provider.Status, error) {
	return ask[[]provider.Status](ctx, c, http.MethodPost, "/keys/refresh", refreshRequest{Provider: name})
}

// Revocations returns the revocations of credentials that have not ended, the
// oldest first.
func (c *AdminClient) Revocations(ctx context.Context) ([]CredentialRevocation, error) {
	return ask[[]CredentialRevocation](ctx, c, http.MethodGet, "/revocations", nil)
}

// UndoRevocation takes a revocation of credentials back, and waits as Revoke
// does.
func (c *AdminClient) UndoRevocation(ctx context.Context, id string) (RevocationStatus, error) {
	return ask[RevocationStatus](ctx, c, http.MethodDelete, "/revocations/"+url.PathEscape(id), nil)
}

// Tokens returns the join tokens that have not ended.
func (c *AdminClient) Tokens(ctx context.Context) ([]TokenStatus, error) {
	return ask[[]TokenStatus](ctx, c, http.MethodGet, "/tokens", nil)
}

// CreateToken makes a join token for a workload.
func (c *AdminClient) CreateToken(ctx context.Context, workload identity.ID, ttl time.Duration) (NewToken, error) {
	return ask[NewToken](ctx, c, http.MethodPost, "/tokens", tokenRequest{Workload: workload.String(), TTL: ttl.String()})
}

// DeleteToken makes a join token useless.
func (c *AdminClient) DeleteToken(ctx context.Context, id string) error {
	_, err := ask[struct{}](ctx, c, http.MethodDelete, "/tokens/"+url.PathEscape(id), nil)
	return err
}

// ask makes one request; body is sent as JSON unless it is nil.
func ask[A any](ctx context.Context, c *AdminClient, method, path string, body any) (answer A, err error) {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return answer, err
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://control-plane"+path, content)
	if err != nil {
		return answer, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer, fmt.Errorf("ask the control plane: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return answer, refusal(resp, path)
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return answer, fmt.Errorf("ask the control plane: %w", err)
	}
	return answer, nil
}

// refusal reads an answer that is an error.
func refusal(resp *http.Response, path string) error {
	var failure adminFailure
	if err := json.NewDecoder(resp.Body).Decode(&failure); err != nil || failure.Error == "" {
		return &AnswerError{Status: resp.StatusCode, Text: fmt.Sprintf("control plane answered %s to %s", resp.Status, path)}
	}
	if failure.Step != nil {
		return &WaitingError{Step: *failure.Step}
	}
	return &AnswerError{Status: resp.StatusCode, Text: failure.Error}
}
