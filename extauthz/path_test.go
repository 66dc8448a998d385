package extauthz_test

import (
	"testing"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// What Envoy writes for bytes that are not UTF-8 is not what the service gets.
func TestMendedPaths(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.gateway.MatchRoutes = true
	f.gateway.Routes = []*chancerypb.RoutePolicy{{Name: "any", Path: "/**", Authentication: &chancerypb.Authentication{Anonymous: true}}}
	s := f.server(t, f.gatewayState(t))
	for name, row := range map[string]struct {
		path, raw string
		merged    bool
		want      outcome
	}{
		"as sent":               {path: "/a!?b=!", raw: "/a!?b=!", want: outcome{200, "allowed", ""}},
		"mended":                {path: "/a!", raw: "/a\xff", want: outcome{400, "path_ambiguous", ""}},
		"mended query":          {path: "/a?b=!", raw: "/a?b=\xff", want: outcome{400, "path_ambiguous", ""}},
		"not told":              {path: "/a!", want: outcome{400, "path_ambiguous", ""}},
		"not told, joined":      {path: "/a!", merged: true, want: outcome{400, "path_ambiguous", ""}},
		"not told, but encoded": {path: "/a%21?b=!", merged: true, want: outcome{200, "allowed", ""}},
	} {
		c := call{method: "GET", path: row.path, ip: "192.0.2.1"}
		if row.raw != "" {
			c.headers = [][2]string{{":path", row.raw}}
		}
		if row.merged {
			c.merged = map[string]string{":path": row.path}
		}
		if _, got := check(t, s, c.request()); got != row.want {
			t.Errorf("%s: got %+v, want %+v", name, got, row.want)
		}
	}
}
