package demo

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/chancery-mesh/chancery/internal/rig"
)

// invite says what to try in a shop that is left running.
func invite(out io.Writer, s *shop, programs rig.Programs) {
	token := filepath.Join(s.Dir(), "token")
	gateway := s.Gateway.Listen
	fmt.Fprintf(out, `
The shop is left running. Get a token, into a file that only you can read:

    %[1]s token -mint %[2]s -out %[3]s
    %[1]s token -mint %[2]s -out %[3]s -claims '{"sub": "joe", "groups": ["visitors"]}'

Send it, change a document and send it again, look at the proxies:

    curl -i --cacert %[9]s -H @%[3]s https://%[4]s/orders/7
    curl -i --cacert %[9]s https://%[4]s/orders/7
    $EDITOR %[5]s/orders.yaml
    %[6]s status --run %[7]s
    %[6]s proxies --run %[7]s
    %[6]s identity --state %[10]s
    %[6]s ca show --run %[7]s
    %[6]s revoke --service orders --run %[7]s

Ctrl-C ends it and removes %[8]s.
`, programs.Shop, s.Issuer.MintAddress, token, gateway, s.Documents.Dir, programs.Chancery, s.RunDir(), s.Dir(),
		s.BundleFile(), s.Instances("orders")[0].Agent.State)
}
