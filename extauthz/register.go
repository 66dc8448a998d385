package extauthz

import (
	"google.golang.org/grpc"

	"github.com/chancery-mesh/chancery/extauthz/wire"
)

// ServerOptions are those that a gRPC server needs for [Server.Register], beside
// which it may have others, and serve other services.
func ServerOptions() []grpc.ServerOption { return wire.ServerOptions() }

// Register makes s the Authorization service of a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) { wire.Register(r, s) }
