// Package grpcpassport is package passport's middleware and propagation for
// gRPC: the server interceptors verify, the client interceptors hand on.
//
//	server := grpc.NewServer(grpc.ChainUnaryInterceptor(grpcpassport.UnaryServer(verifier)))
//	client, err := grpc.NewClient(target, grpc.WithChainUnaryInterceptor(grpcpassport.UnaryClient))
package grpcpassport

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/chancery-mesh/chancery/passport"
)

var (
	tokenKey     = strings.ToLower(passport.Header)
	requestIDKey = strings.ToLower(passport.RequestIDHeader)
)

// UnaryServer lets through calls with exactly one valid Passport, which the
// handler finds by [passport.FromContext]; others end as Unauthenticated.
func UnaryServer(v *passport.Verifier) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		ctx, err := verify(ctx, v)
		if err != nil {
			return nil, err
		}
		return handle(ctx, req)
	}
}

// StreamServer is [UnaryServer] for streams.
func StreamServer(v *passport.Verifier) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		ctx, err := verify(stream.Context(), v)
		if err != nil {
			return err
		}
		return handle(srv, serverStream{stream, ctx})
	}
}

type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s serverStream) Context() context.Context { return s.ctx }

func verify(ctx context.Context, v *passport.Verifier) (context.Context, error) {
	denied := status.Error(codes.Unauthenticated, "access denied")
	tokens := metadata.ValueFromIncomingContext(ctx, tokenKey)
	if len(tokens) != 1 {
		return nil, denied
	}
	p, err := v.Verify(tokens[0])
	if err != nil {
		return nil, denied
	}
	return passport.NewContext(ctx, p), nil
}

// UnaryClient adds the Passport and the request's id to calls whose context
// comes from a server interceptor or [passport.Middleware]. Use it for calls
// into the mesh only.
func UnaryClient(
	ctx context.Context, method string, req, reply any,
	cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	return invoke(propagate(ctx), method, req, reply, cc, opts...)
}

// StreamClient is [UnaryClient] for streams.
func StreamClient(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn,
	method string, stream grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return stream(propagate(ctx), desc, cc, method, opts...)
}

func propagate(ctx context.Context) context.Context {
	p, ok := passport.FromContext(ctx)
	if !ok || p.Token() == "" {
		return ctx
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	md = md.Copy()
	md.Set(tokenKey, p.Token())
	md.Set(requestIDKey, p.ID)
	return metadata.NewOutgoingContext(ctx, md)
}
