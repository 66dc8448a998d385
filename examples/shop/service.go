package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chancery-mesh/chancery/examples/shop/service"
	"github.com/chancery-mesh/chancery/passport"
)

type serviceFlags struct {
	name, instance, listen, upstream string
	keys, trustDomain                string
	register, advertise, mesh        string
	drain                            time.Duration
}

func (f *serviceFlags) add(flags *flag.FlagSet) {
	flags.StringVar(&f.name, "name", "", "orders, inventory or payments")
	flags.StringVar(&f.instance, "instance", "", "name of this instance (default NAME-HOST)")
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8080", "where the sidecar finds the service")
	flags.StringVar(&f.upstream, "upstream", "http://127.0.0.1:15001", "where the sidecar takes calls to other services")
	flags.StringVar(&f.keys, "passport-keys", "", "file with the keys of Passports, which the agent keeps current")
	flags.StringVar(&f.trustDomain, "trust-domain", "shop.example", "trust domain of the mesh")
	flags.StringVar(&f.register, "register", "", "registry to register in: consul, or nothing")
	flags.StringVar(&f.advertise, "advertise", "", "IP address to register (default the first that is not loopback)")
	flags.StringVar(&f.mesh, "mesh", ":15006", "where the sidecar listens; without a host, the advertised one")
	flags.DurationVar(&f.drain, "drain", time.Second, "how long to serve on after deregistering, for callers to hear of it")
}

func runService(ctx context.Context, flags *flag.FlagSet, args []string) error {
	var f serviceFlags
	f.add(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	f.instance = cmp.Or(f.instance, f.name+"-"+host)
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil)).With("service", f.name, "instance", f.instance)

	handler, err := f.service(log)
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	serving, drained := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error { return service.Serve(serving, listener, handler.Handler()) })
	group.Go(func() error {
		defer drained()
		if err := f.announce(ctx, listener.Addr(), log); err != nil {
			return err
		}
		time.Sleep(f.drain)
		return nil
	})
	return group.Wait()
}

func (f *serviceFlags) service(log *slog.Logger) (*service.Service, error) {
	keys, err := passport.OpenFile(f.keys)
	if err != nil { // the agent has not written it yet; it is looked at again
		log.Warn("no passport is valid yet", "err", err)
	}
	verifier, err := passport.NewVerifier(passport.VerifierConfig{TrustDomain: f.trustDomain, Keys: keys})
	if err != nil {
		return nil, err
	}
	return service.New(service.Config{
		Name: f.name, Instance: f.instance, Upstream: f.upstream, Verifier: verifier,
	})
}

// announce keeps the instance in the registry, if one is named, until ctx ends.
func (f *serviceFlags) announce(ctx context.Context, listen net.Addr, log *slog.Logger) error {
	switch f.register {
	case "":
		<-ctx.Done()
		return nil
	case "consul":
		r, err := f.registration(listen)
		if err != nil {
			return err
		}
		return service.Register(ctx, r, log)
	default:
		return fmt.Errorf("-register %q: write consul", f.register)
	}
}

func (f *serviceFlags) registration(listen net.Addr) (service.Registration, error) {
	none := service.Registration{}
	ip, err := f.address()
	if err != nil {
		return none, err
	}
	application, err := netip.ParseAddrPort(listen.String())
	if err != nil {
		return none, err
	}
	host, port, err := net.SplitHostPort(f.mesh)
	if err != nil {
		return none, fmt.Errorf("-mesh %q: %w", f.mesh, err)
	}
	mesh, err := netip.ParseAddrPort(net.JoinHostPort(cmp.Or(host, ip.String()), port))
	if err != nil {
		return none, fmt.Errorf("-mesh %q: %w", f.mesh, err)
	}
	return service.Registration{
		Service: f.name, Instance: f.instance,
		Address: netip.AddrPortFrom(ip, application.Port()), Mesh: mesh,
	}, nil
}

// address returns what to register: what was said, or this host's own address.
func (f *serviceFlags) address() (netip.Addr, error) {
	if f.advertise != "" {
		return netip.ParseAddr(f.advertise)
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range addresses {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is4() && p.Addr().IsGlobalUnicast() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("this host has no address but loopback: say -advertise")
}
