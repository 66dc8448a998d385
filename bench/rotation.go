package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/internal/rig"
)

const (
	// shortLived has certificates of ten seconds, signed by authorities of a
	// minute, each with a root of its own.
	shortLived = "passport: {lifetime: 60s}\ncertificates: {lifetime: 10s, authorityLifetime: 1m, rootLifetime: 1m}"
	usualLives = "passport: {lifetime: 60s}"
	// rotationRate is in requests per second; every fourth over a connection of
	// its own.
	rotationRate  = 500
	rotationFresh = 4
	// generations of authorities that certificates are seen of.
	generations = 4
	// swapEvery is how often the gateway's listener gets a new certificate.
	swapEvery = 7 * time.Second
)

// rotationFigures are what is measured while everything rotates.
type rotationFigures struct {
	Requests       int `json:"requests"`
	Failed         int `json:"failed"`
	TLSErrors      int `json:"tls_errors"`
	LeafRotations  int `json:"leaf_rotations"`
	Generations    int `json:"authority_generations"`
	NewConnections int `json:"new_connections"`
	ListenerSwaps  int `json:"listener_certificate_swaps"`

	P50     ms      `json:"request_p50_ms"`
	P99     ms      `json:"request_p99_ms"`
	Seconds float64 `json:"seconds"`
}

// promises says which of Chancery's promises the figures break.
func (f rotationFigures) promises() error {
	var broken []error
	promise := func(kept bool, format string, args ...any) {
		if !kept {
			broken = append(broken, fmt.Errorf(format, args...))
		}
	}
	promise(f.Failed == 0, "%d of %d requests failed", f.Failed, f.Requests)
	promise(f.TLSErrors == 0, "%d TLS errors", f.TLSErrors)
	promise(f.LeafRotations > 0, "no certificate was renewed")
	promise(f.Generations >= 3, "%d generations of authorities", f.Generations)
	promise(float64(f.Requests) >= rotationRate*f.Seconds*0.99, "%d requests in %.0f s", f.Requests, f.Seconds)
	promise(5*f.NewConnections >= f.Requests, "%d of %d requests on new connections", f.NewConnections, f.Requests)
	return errors.Join(broken...)
}

// rotation measures requests while leaves, authorities, Passport keys and the
// gateway's own certificate rotate all the time.
func rotation(ctx context.Context, config rig.Config) (err error) {
	config.Replace = []string{usualLives, shortLived}
	mesh, err := rig.Start(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mesh.Close()) }()
	f, err := rotate(ctx, mesh)
	if err != nil {
		return mesh.Explain(ctx, err)
	}
	promises := f.promises()
	if promises != nil {
		fmt.Println(mesh.Logs())
	}
	line, err := json.Marshal(f)
	fmt.Printf("\n%s\n", line)
	return errors.Join(err, promises)
}

func rotate(ctx context.Context, mesh *rig.Rig) (f rotationFigures, err error) {
	b, err := newBench(ctx, mesh, rotationRate/10)
	if err != nil {
		return f, err
	}
	before, err := tlsErrors(ctx, mesh)
	if err != nil {
		return f, err
	}
	// Most requests meet one service, some of them two.
	orders, stock := b.load, b.load
	stock.Rate, stock.URL = rotationRate-orders.Rate, mesh.Gateway.URL("/stock/7")
	orders.Fresh, stock.Fresh = rotationFresh, rotationFresh
	start := time.Now()
	traffic := []*rig.Traffic{orders.Start(ctx), stock.Start(ctx)}
	seen, err := watchRotation(ctx, mesh, &f)
	var samples rig.Samples
	for _, t := range traffic {
		samples = append(samples, t.Stop()...)
	}
	f.Seconds = time.Since(start).Seconds()
	after, errAfter := tlsErrors(ctx, mesh)
	if errAfter == nil {
		f.TLSErrors, errAfter = after.since(before)
	}
	f.LeafRotations, f.Generations = seen.rotations(), len(seen.authorities)
	f.count(mesh, samples)
	f.print(samples)
	return f, errors.Join(err, errAfter)
}

func (f *rotationFigures) count(mesh *rig.Rig, samples rig.Samples) {
	f.Requests, f.Failed = len(samples), len(samples.Failed())
	for _, s := range samples {
		if s.Fresh {
			f.NewConnections++
		}
	}
	all := latency(samples)
	f.P50, f.P99 = all.quantile(0.5), all.quantile(0.99)
	for _, s := range samples.Failed()[:min(f.Failed, 3)] {
		fmt.Printf("\na failure, %s: %s\n%s\n", s.At.Format(time.TimeOnly), s.Fault, mesh.Trace(s.RequestID))
	}
}

func (f rotationFigures) print(samples rig.Samples) {
	printHeader()
	latency(samples).print("a request, while everything rotates")
	fmt.Println()
	for _, row := range []struct {
		what string
		n    int
	}{
		{"requests", f.Requests},
		{"of them on new connections", f.NewConnections},
		{"failed", f.Failed},
		{"TLS errors at all Envoys and the control plane", f.TLSErrors},
		{"certificates of workloads renewed", f.LeafRotations},
		{"authorities that signed them", f.Generations},
		{"certificates of the gateway's listener swapped", f.ListenerSwaps},
	} {
		fmt.Printf("  %-48s %7d\n", row.what, row.n)
	}
}

// seen is what proxies were seen to use: serial numbers of each, and the
// authorities of all.
type seen struct {
	serials     map[string]map[string]bool
	authorities map[string]bool
}

func (s seen) note(proxies []controlplane.ProxyStatus) {
	for _, p := range proxies {
		if p.Certificate == nil || p.Certificate.Serial == "" {
			continue
		}
		name := p.Name + "/" + p.Instance
		if s.serials[name] == nil {
			s.serials[name] = map[string]bool{}
		}
		s.serials[name][p.Certificate.Serial] = true
		s.authorities[p.Certificate.Authority] = true
	}
}

// rotations counts the certificates that took the place of another.
func (s seen) rotations() (n int) {
	for _, serials := range s.serials {
		n += len(serials) - 1
	}
	return n
}

// watchRotation returns once certificates of enough authorities were seen.
func watchRotation(ctx context.Context, mesh *rig.Rig, f *rotationFigures) (seen, error) {
	s := seen{map[string]map[string]bool{}, map[string]bool{}}
	client := controlplane.NewAdminClient(mesh.RunDir())
	swapped := time.Now()
	err := rig.Until(ctx, 5*time.Minute, func(ctx context.Context) error {
		pause(500 * time.Millisecond)
		if time.Since(swapped) > swapEvery {
			swapped = time.Now()
			f.ListenerSwaps++
			if err := mesh.RenewCertificate("public"); err != nil {
				return err
			}
		}
		proxies, err := client.Proxies(ctx)
		if err != nil {
			return err
		}
		s.note(proxies)
		if len(s.authorities) < generations {
			return fmt.Errorf("certificates of %d authorities", len(s.authorities))
		}
		return nil
	})
	return s, err
}
