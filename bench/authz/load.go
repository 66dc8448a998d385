package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
)

// inFlight is how many checks are under way at any time.
const inFlight = 64

const checkMethod = "/envoy.service.auth.v3.Authorization/Check"

// bytesCodec sends and returns messages that are encoded: what the load
// generator does not do leaves more of the machine to the server.
type bytesCodec struct{}

// Name implements [encoding.CodecV2].
func (bytesCodec) Name() string { return "proto" }

// Marshal implements [encoding.CodecV2].
func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

// Unmarshal implements [encoding.CodecV2].
func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// answer is what came of a call.
type answer struct {
	*call
	response []byte
	took     time.Duration
	// http is the status of an answer that came through Envoy.
	http int
}

// drive makes calls for a while, one by one in each worker, and returns the
// answers. Once says that no call may be made twice; it ends with the last then.
func (p *process) drive(ctx context.Context, calls []*call, once bool, turn time.Duration) ([]answer, error) {
	var next atomic.Int64
	end := time.Now().Add(turn)
	group, ctx := errgroup.WithContext(ctx)
	var parts [inFlight][]answer
	for worker := range inFlight {
		group.Go(func() error {
			for time.Now().Before(end) {
				i := int(next.Add(1)) - 1
				if once && i >= len(calls) {
					return nil
				}
				a, err := check(ctx, p.conns[worker%connections], calls[i%len(calls)])
				if err != nil {
					return err
				}
				parts[worker] = append(parts[worker], a)
			}
			return nil
		})
	}
	err := group.Wait()
	var all []answer
	for _, part := range parts {
		all = append(all, part...)
	}
	return all, err
}

func check(ctx context.Context, conn *grpc.ClientConn, c *call) (answer, error) {
	a := answer{call: c}
	begin := time.Now()
	if err := conn.Invoke(ctx, checkMethod, &c.request, &a.response); err != nil {
		return a, fmt.Errorf("check: %w", err)
	}
	a.took = time.Since(begin)
	return a, nil
}
