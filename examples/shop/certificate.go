package main

import (
	"context"
	"flag"

	"github.com/chancery-mesh/chancery/examples/shop/outside"
)

// runCertificate writes a certificate for a gateway of the demo, and what
// clients verify it by.
func runCertificate(_ context.Context, flags *flag.FlagSet, args []string) error {
	dir := flags.String("dir", "/certificates", "directory of the certificates")
	gateway := flags.String("gateway", "public", "name of the gateway")
	if err := flags.Parse(args); err != nil {
		return err
	}
	authority, err := outside.New()
	if err != nil {
		return err
	}
	return authority.Write(*dir, *gateway)
}
