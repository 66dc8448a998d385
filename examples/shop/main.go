// Command shop is the demo shop: its services, a small OpenID provider, and a
// narrator who sends requests through a real mesh and says what comes back.
//
//	shop demo        start everything, send requests, check what comes
//	shop service     one instance of orders, inventory or payments
//	shop issuer      the OpenID provider
//	shop token       write a token of the issuer to a file, for curl
//	shop certificate write a certificate for a gateway, and its authority's
//	shop health      exit 0 if a URL answers well, for health checks
//	shop welcome     say what to try in docker-compose.yml
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = "usage: shop demo|service|issuer|token|certificate|health|welcome [flags]; shop COMMAND -h tells them"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:])
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "shop: error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	commands := map[string]func(context.Context, *flag.FlagSet, []string) error{
		"demo": runDemo, "service": runService, "issuer": runIssuer, "token": runToken, "health": runHealth,
		"welcome": runWelcome, "certificate": runCertificate,
	}
	if len(args) == 0 {
		return errors.New(usage)
	}
	command, ok := commands[args[0]]
	if !ok {
		return fmt.Errorf("no command %q: %s", args[0], usage)
	}
	return command(ctx, flag.NewFlagSet("shop "+args[0], flag.ContinueOnError), args[1:])
}
