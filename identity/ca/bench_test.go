package ca_test

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/chancery-mesh/chancery/identity/ca"
)

// BenchmarkRenewalStorm has 1,000 workloads renew at once.
func BenchmarkRenewalStorm(b *testing.B) {
	const storm = 1000
	const ample = 1 << 40
	disk := &ca.BrittleDisk{Left: ample}
	authority := open(b, ca.OnDisk(ca.Config{Dir: filepath.Join(b.TempDir(), "ca"), TrustDomain: trustDomain}, disk))
	requests := make([]ca.Request, storm)
	for n := range requests {
		_, cert := sign(b, authority, request(b, orders))
		requests[n] = renewal(b, cert)
	}
	disk.Left = ample
	for b.Loop() {
		var wg sync.WaitGroup
		for _, req := range requests {
			wg.Go(func() {
				if _, _, err := authority.Sign(req); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
	b.ReportMetric(float64(ample-disk.Left)/2/float64(b.N), "flushes/op") // a write and a sync each
	b.ReportMetric(storm*float64(b.N)/b.Elapsed().Seconds(), "certificates/s")
}
