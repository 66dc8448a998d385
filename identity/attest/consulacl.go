package attest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/chancery-mesh/chancery/breaker"
)

// permission is a question to Consul's ACLs, and the answer.
type permission struct {
	Resource string
	Access   string
	Segment  string
	Allow    bool `json:",omitempty"` // only in the answer
}

// nobody is whom a service must not be written by: who names the token of those
// who have none, and who names no token and gets the default of the Consul
// agent that the control plane asks.
var nobody = []string{"anonymous", ""}

// CheckACLs returns an error unless it takes a token to write a service.
func (a *Consul) CheckACLs(ctx context.Context, service string) error {
	return a.consul.checkACLs(ctx, service)
}

// checkACLs returns an error unless it takes a token to write a service.
func (c *consulClient) checkACLs(ctx context.Context, service string) error {
	for _, token := range nobody {
		allowed, err := breaker.Do(ctx, c.guard, func(ctx context.Context) (bool, error) {
			return c.mayWrite(ctx, service, token)
		})
		if err != nil {
			return fmt.Errorf("ask consul who may write it: %w", err)
		}
		if allowed {
			return errors.New("consul lets anybody write it: turn ACLs on with default policy deny," +
				" take service:write from the anonymous token, or use join tokens")
		}
	}
	return nil
}

// mayWrite asks what Consul's own UI asks too. Without ACLs Consul answers 401.
// A Consul that does not know the question is an error.
func (c *consulClient) mayWrite(ctx context.Context, service, token string) (bool, error) {
	question := permission{Resource: "service", Access: "write", Segment: service}
	req, err := c.aclRequest(ctx, question, token)
	if err != nil {
		return false, err
	}
	resp, err := c.config.HttpClient.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized:
		return true, nil
	default:
		return false, fmt.Errorf("consul answered %d", resp.StatusCode)
	}
	var answer []permission
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return false, err
	}
	if len(answer) == 1 {
		question.Allow = answer[0].Allow
	}
	if len(answer) != 1 || answer[0] != question {
		return false, errors.New("consul answered another question")
	}
	return answer[0].Allow, nil
}

func (c *consulClient) aclRequest(ctx context.Context, question permission, token string) (*http.Request, error) {
	body, err := json.Marshal([]permission{question})
	if err != nil {
		return nil, err
	}
	query := url.Values{}
	for name, value := range map[string]string{
		"dc": c.config.Datacenter, "ns": c.config.Namespace, "partition": c.config.Partition,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	address := url.URL{
		Scheme: c.config.Scheme, Host: c.config.Address,
		Path: c.config.PathPrefix + "/v1/internal/acl/authorize", RawQuery: query.Encode(),
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("X-Consul-Token", token)
	}
	if auth := c.config.HttpAuth; auth != nil {
		req.SetBasicAuth(auth.Username, auth.Password)
	}
	return req, nil
}
