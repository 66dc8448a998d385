package extauthz

import (
	"context"
	"errors"
	"fmt"

	"github.com/chancery-mesh/chancery/extauthz/credential"
)

// errNotIntrospected says that nobody could be asked about a token.
var errNotIntrospected = errors.New("token not introspected")

// introspect asks the provider about an access token, which is shown by peer.
func (c *check) introspect(ctx context.Context, p *provider, token string, peer *credential.Certificate) (*credential.Identity, error) {
	if c.dry || c.server.introspector == nil || p.GetIntrospection() == nil {
		return nil, errNotIntrospected
	}
	told, err := c.server.introspector.Introspect(ctx, p.Provider, token, c.IP, c.Time)
	if _, ok := errors.AsType[credential.Reason](err); err != nil && !ok {
		return nil, fmt.Errorf("%w: %w", errNotIntrospected, err)
	}
	if err != nil {
		return nil, err
	}
	return told.ShownBy(peer)
}

// confirmed returns whom a token speaks for that was introspected. Of a JWT,
// which id is verified from, nothing else must be told: what counts is that it is
// still good.
func confirmed(id, told *credential.Identity) (*credential.Identity, error) {
	switch {
	case id == nil:
		return told, nil
	case told.User != id.User || told.Client != "" && told.Client != id.Client:
		return nil, credential.Mismatch
	}
	return id, nil
}
