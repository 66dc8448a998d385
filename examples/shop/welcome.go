package main

import (
	"context"
	"flag"
	"fmt"
)

// runWelcome is the last thing that docker-compose.yml starts.
func runWelcome(_ context.Context, flags *flag.FlagSet, args []string) error {
	gateway := flags.String("gateway", "https://127.0.0.1:8443", "where the gateway is published")
	if err := flags.Parse(args); err != nil {
		return err
	}
	fmt.Printf(`The shop is open. Get what the gateway's certificate is verified by, and a token, which goes into a file that you
alone can read, and send the first request:

  docker compose cp gateway:/certificates/outside.ca.crt .
  (umask 077; docker compose exec -T issuer /usr/local/bin/shop token > token)
  curl -i --cacert outside.ca.crt -H @token %[1]s/orders/1

and without the token, to see it refused: curl -i --cacert outside.ca.crt %[1]s/orders/1
`, *gateway)
	return nil
}
