// Workloadapi shows an application that ends mutual TLS itself: a server that
// answers one caller, and a client that calls one server, each known by its
// SPIFFE ID. Their certificates come from the SPIFFE Workload API of the agent
// beside each, by go-spiffe, and rotate without a restart. Nothing here knows of
// Chancery.
//
//	export SPIFFE_ENDPOINT_SOCKET=unix:///var/lib/chancery/orders/workload.sock
//	workloadapi -listen 127.0.0.1:9443 -peer spiffe://shop.example/service/web
//
//	export SPIFFE_ENDPOINT_SOCKET=unix:///var/lib/chancery/web/workload.sock
//	workloadapi -call https://127.0.0.1:9443 -peer spiffe://shop.example/service/orders
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "workloadapi: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("workloadapi", flag.ContinueOnError)
	listen := flags.String("listen", "", "serve at this `address`")
	call := flags.String("call", "", "call the server at this `URL`")
	peer := flags.String("peer", "", "SPIFFE `ID` of the other side")
	if err := flags.Parse(args); err != nil {
		return err
	}
	id, err := spiffeid.FromString(*peer)
	if err != nil {
		return fmt.Errorf("-peer: %w", err)
	}
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	if *call != "" {
		answer, err := newClient(source, id).get(ctx, *call)
		fmt.Fprint(out, answer)
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", *listen)
	if err != nil {
		return err
	}
	return serve(ctx, l, source, id)
}

// serve answers the one caller until ctx ends.
func serve(ctx context.Context, l net.Listener, source *workloadapi.X509Source, caller spiffeid.ID) error {
	server := &http.Server{
		Handler:           http.HandlerFunc(greet),
		TLSConfig:         tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeID(caller)),
		ReadHeaderTimeout: 5 * time.Second,
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func greet(w http.ResponseWriter, r *http.Request) {
	caller, err := x509svid.IDFromCert(r.TLS.PeerCertificates[0])
	if err != nil {
		http.Error(w, "who are you?", http.StatusForbidden)
		return
	}
	fmt.Fprintf(w, "hello %s\n", caller)
}

type client struct{ http.Client }

// newClient returns a client that talks with the one server.
func newClient(source *workloadapi.X509Source, server spiffeid.ID) *client {
	return &client{http.Client{
		Transport: &http.Transport{TLSClientConfig: tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(server))},
		Timeout:   5 * time.Second,
	}}
}

func (c *client) get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return string(body), err
}
