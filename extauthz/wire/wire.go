// Package wire reads Envoy's CheckRequests and writes CheckResponses without
// the protobuf library, which takes as long for them as many a decision does.
//
// [ServerOptions] makes a gRPC server that speaks so; what it serves beside
// is encoded as ever.
//
// Reading is strict: what is accepted means to the protobuf library the same,
// and whatever could mean two things (a field that stands twice) is refused. The
// package knows the form of messages and nothing of decisions.
package wire

import (
	"context"
	"math"
	"sync"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Checker answers check requests.
type Checker interface {
	// Answer must not keep r, which becomes another request, nor slices of it. Its
	// strings may be kept.
	Answer(ctx context.Context, r *Request) *Response
}

const (
	// streamWorkers are goroutines that wait for checks, so that not each one
	// begins with a stack that is too small.
	streamWorkers = 64
	// Windows of a fixed size spare measuring how large they should be, for which
	// gRPC sends pings. Requests are small, and their sender is near.
	streamWindow     = 1 << 20
	connectionWindow = 8 << 20
)

// ServerOptions are those of a gRPC server that [Register] is called for. It may
// serve other services, too.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(proto.Name)}),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connectionWindow),
		// To a check that gRPC refuses there is no answer, and some Envoys let pass what
		// they get none to. It is Envoy that bounds what it sends (max_request_bytes).
		grpc.MaxRecvMsgSize(math.MaxInt32),
	}
}

// Register makes c the Authorization service of a server that was made with
// [ServerOptions].
func Register(r grpc.ServiceRegistrar, c Checker) { r.RegisterService(&service, c) }

var service = grpc.ServiceDesc{
	ServiceName: authv3.Authorization_ServiceDesc.ServiceName,
	HandlerType: (*Checker)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Check", Handler: handle}},
	Metadata:    authv3.Authorization_ServiceDesc.Metadata,
}

//nolint:revive // gRPC prescribes the order of the parameters
func handle(server any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
	r, _ := requests.Get().(*Request)
	defer func() {
		*r = Request{}
		requests.Put(r)
	}()
	if err := decode(r); err != nil {
		return nil, err
	}
	check := func(ctx context.Context, r any) (any, error) {
		return server.(Checker).Answer(ctx, r.(*Request)), nil
	}
	if intercept == nil {
		return check(ctx, r)
	}
	info := &grpc.UnaryServerInfo{Server: server, FullMethod: authv3.Authorization_Check_FullMethodName}
	return intercept(ctx, r, info, check)
}

// requests are used again: they are large, and come often.
var requests = sync.Pool{New: func() any { return &Request{} }}

// codec is protobuf's but for check requests and responses.
type codec struct{ encoding.CodecV2 }

// Unmarshal implements [encoding.CodecV2]. A check request that is malformed
// says so itself, for whoever decides.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*Request)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	whole := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer whole.Free()
	r.parse(whole.ReadOnlyData())
	return nil
}

// Marshal implements [encoding.CodecV2]. Some Envoys let pass what they get an
// error for.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	r, ok := v.(*Response)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	if r.Message != nil {
		if data, err := c.CodecV2.Marshal(r.Message); err == nil {
			return data, nil
		}
		r = &Response{} // what cannot be sent refuses
	}
	pool := mem.DefaultBufferPool()
	buffer := pool.Get(usualResponse)
	*buffer = r.Append((*buffer)[:0])
	return mem.BufferSlice{mem.NewBuffer(buffer, pool)}, nil
}

// usualResponse has room for a Passport.
const usualResponse = 2 << 10
