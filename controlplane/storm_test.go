package controlplane_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// agents is how many of them come back at once.
const agents = 1000

// returning is one agent of them, with a key and a certificate of its own.
type returning struct {
	svid *identity.SVID
	key  *ecdsa.PrivateKey
	csr  []byte
	conn *grpc.ClientConn
	took time.Duration
}

// BenchmarkThousandRenewals has a thousand agents, of one service, connect,
// take their whole view and renew, all at once, as after the control plane was
// away for long: without the jitter that real ones have, from one address, and
// from this process, whose CPU time and memory are both sides'.
func BenchmarkThousandRenewals(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		r := start(b, shop())
		all := make([]*returning, agents)
		for i := range all {
			all[i] = r.returning(b)
		}
		r.stop()
		r.start()
		r.until("agents are served", func() bool { return r.server.Addr() != nil })
		before, memory := cpuTime(b), newPeak()
		b.StartTimer()

		renew(b, r, all)

		b.StopTimer()
		b.ReportMetric(float64(percentile(all, 50).Milliseconds()), "p50-ms")
		b.ReportMetric(float64(percentile(all, 99).Milliseconds()), "p99-ms")
		b.ReportMetric(float64(percentile(all, 100).Milliseconds()), "max-ms")
		b.ReportMetric((cpuTime(b) - before).Seconds(), "cpu-s")
		b.ReportMetric(float64(memory.stop())/(1<<20), "heap-MiB")
		b.ReportMetric(r.metric("chancery_certificates_signed_total"), "signed")
		for _, a := range all {
			_ = a.conn.Close()
		}
		r.stop()
		b.StartTimer()
	}
}

func (r *rig) returning(b *testing.B) *returning {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		b.Fatal(err)
	}
	return &returning{svid: r.newSVID(orders), key: key, csr: csr}
}

// renew fails the benchmark unless every agent has its view and a new
// certificate in the end.
func renew(b *testing.B, r *rig, all []*returning) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	trust, began := r.trust(), time.Now()
	var failed atomic.Int64
	var work sync.WaitGroup
	for _, a := range all {
		work.Go(func() {
			if err := a.renew(ctx, r.server.Addr().String(), trust); err != nil {
				failed.Add(1)
				b.Error(err)
			}
			a.took = time.Since(began)
		})
	}
	work.Wait()
	if n := failed.Load(); n > 0 {
		b.Fatalf("%d of %d failed", n, len(all))
	}
}

func (a *returning) renew(ctx context.Context, address string, trust *identity.Trust) error {
	creds := grpc.WithTransportCredentials(identity.ClientCredentials(source{a.svid, trust}))
	var err error
	if a.conn, err = grpc.NewClient(address, creds, grpc.WithDefaultCallOptions(grpc.WaitForReady(true))); err != nil {
		return err
	}
	if err := a.subscribe(ctx); err != nil {
		return err
	}
	resp, err := chancerypb.NewControlPlaneClient(a.conn).Enroll(ctx, &chancerypb.EnrollRequest{Csr: a.csr})
	if err != nil {
		return err
	}
	_, err = identity.ParseSVID(orders, a.key, resp.GetChain())
	return err
}

func (a *returning) subscribe(ctx context.Context) error {
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(a.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	for _, typeURL := range append(slices.Clone(viewTypes), trustType) {
		req := &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "1"}, TypeUrl: typeURL, ResourceNamesSubscribe: []string{"*"}}
		if err := stream.Send(req); err != nil {
			return err
		}
	}
	for range len(viewTypes) + 1 {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		if len(resp.GetResources()) == 0 {
			return errors.New("nothing in the view")
		}
	}
	return nil
}

func percentile(all []*returning, p int) time.Duration {
	var took []time.Duration
	for _, a := range all {
		took = append(took, a.took)
	}
	slices.Sort(took)
	return took[min(len(took)*p/100, len(took)-1)]
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak is the most memory in use, above what was in use before.
type peak struct {
	before, most uint64
	done, ended  chan struct{}
}

func newPeak() *peak {
	p := &peak{before: heap(), done: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-p.done:
				return
			case <-tick.C:
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				p.most = max(p.most, m.HeapInuse+m.StackInuse)
			}
		}
	}()
	return p
}

func (p *peak) stop() uint64 {
	close(p.done)
	<-p.ended
	return p.most - min(p.before, p.most)
}
