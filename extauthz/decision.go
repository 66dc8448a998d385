package extauthz

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/chancery-mesh/chancery/internal/throttle"
)

// decision is one check on its way to an answer.
type decision struct {
	Record
	verdict

	// denyStatus is that of the policy.
	denyStatus int
	// challenge goes with a 401.
	challenge string
	// passport is the token that a gateway minted, and strips says that the
	// credentials that came with the request go no further.
	passport string
	strips   bool
	// gateway says that requests may come from outside.
	gateway bool
	// began is when somebody asked, whatever the Time that it is decided for.
	began time.Time
}

func newDecision() *decision {
	d := &decision{began: time.Now()}
	d.ID, d.Time = newID(), d.began
	return d
}

// newID returns a name for a decision, which nobody gains by guessing.
func newID() string {
	var id [16]byte
	binary.NativeEndian.PutUint64(id[:8], rand.Uint64()) //nolint:gosec // it is no secret
	binary.NativeEndian.PutUint64(id[8:], rand.Uint64()) //nolint:gosec // it is no secret
	return hex.EncodeToString(id[:])
}

// unknown stands for what is not known in metadata, since Envoy makes no rate
// limit descriptor of an empty value.
const unknown = "-"

// network returns an IPv4 address as it is, and of an IPv6 address the network
// that one client commands: limits by address would not hold it otherwise.
func network(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Is4() {
		return address
	}
	return throttle.Network(ip).String()
}

func (s *Server) log(ctx context.Context, r *Record) {
	level := slog.LevelInfo
	if r.Allowed() {
		level = slog.LevelDebug
	}
	if !s.logger.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("decision", r.ID), slog.String("policy", r.Policy), slog.String("route", r.Route),
		slog.String("reason", r.Reason), slog.String("caller", r.Caller), slog.String("request_id", r.RequestID),
	}
	// What the decision log shall not tell is not told here either.
	keeps := r.Recording.Redaction.KeepsText()
	if r.Identity != nil && keeps {
		attrs = append(attrs, slog.String("sub", r.Identity.User))
	}
	if r.Cause != nil && keeps {
		attrs = append(attrs, slog.Any("err", r.Cause))
	}
	if r.Allowed() {
		s.logger.LogAttrs(ctx, level, "check allowed", attrs...)
	} else {
		s.logger.LogAttrs(ctx, level, "check denied", attrs...)
	}
}
