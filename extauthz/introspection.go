package extauthz

import (
	"context"
	"errors"
	"fmt"

	"github.com/chancery-mesh/chancery/extauthz/credential"
)

// errNotIntrospected says that nobody could be asked about a token.
var errNotIntrospected = errors.New("token not introspected")

// introspect asks the provider about an access token. Of a JWT, which id is
// verified from, it must say nothing else: what counts is that it is still good.
func (c *check) introspect(ctx context.Context, p *provider, token string, id *credential.Identity) (*credential.Identity, error) {
	if c.dry || c.server.introspector == nil || p.GetIntrospection() == nil {
		return nil, errNotIntrospected
	}
	told, err := c.server.introspector.Introspect(ctx, p.Provider, token, c.IP, c.Time)
	if _, ok := errors.AsType[credential.Reason](err); err != nil && !ok {
		return nil, fmt.Errorf("%w: %w", errNotIntrospected, err)
	}
	switch {
	case err != nil:
		return nil, err
	case id == nil:
		return told, nil
	case told.User != id.User || told.Client != "" && told.Client != id.Client:
		return nil, credential.Mismatch
	}
	return id, nil
}
