package extauthz

import (
	"os"
	"runtime/debug"

	"google.golang.org/grpc"

	"github.com/chancery-mesh/chancery/extauthz/wire"
)

// ServerOptions are those that a gRPC server needs for [Server.Register], beside
// which it may have others, and serve other services.
func ServerOptions() []grpc.ServerOption { return wire.ServerOptions() }

// Register makes s the Authorization service of a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) { wire.Register(r, s) }

// SpareGC lets the garbage of a whole process grow before it is collected, unless
// GOGC says how far. Each check leaves some kilobytes behind, and little lives:
// that costs some 10 MB, and saves a tenth of what a check takes.
func SpareGC() {
	const percent = 200
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}
