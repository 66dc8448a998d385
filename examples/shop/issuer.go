package main

import (
	"context"
	"errors"
	"flag"
	"net"

	"golang.org/x/sync/errgroup"

	"github.com/chancery-mesh/chancery/examples/shop/issuer"
	"github.com/chancery-mesh/chancery/examples/shop/service"
)

func runIssuer(ctx context.Context, flags *flag.FlagSet, args []string) error {
	listen := flags.String("listen", "127.0.0.1:9000", "address of the discovery document and the keys")
	mint := flags.String("mint", "127.0.0.1:9001", "address that mints any token for anybody: keep it on loopback")
	url := flags.String("url", "", "the issuer's name in tokens (default http://LISTEN)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *url == "" {
		*url = "http://" + *listen
	}
	i, err := issuer.New(*url)
	if err != nil {
		return err
	}
	public, err := i.Public()
	if err != nil {
		return err
	}
	publicListener, err := new(net.ListenConfig).Listen(ctx, "tcp", *listen)
	if err != nil {
		return err
	}
	mintListener, err := new(net.ListenConfig).Listen(ctx, "tcp", *mint)
	if err != nil {
		return errors.Join(err, publicListener.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return service.Serve(ctx, publicListener, public) })
	group.Go(func() error { return service.Serve(ctx, mintListener, i.Mint()) })
	return group.Wait()
}
