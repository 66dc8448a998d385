package rego_test

import (
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/extauthz/policy/rego"
)

// A flood of what is different each time leaves next to nothing behind, however
// large it is.
func TestNothingLargeIsKept(t *testing.T) { //nolint:paralleltest // it measures the heap
	const most = 6 << 20
	_, key := keyPair(t)
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256"}`))
	for _, c := range []struct {
		name, rule string
		times      int
		input      func(i int) string
	}{
		{
			"forged tokens", `allow if not io.jwt.decode_verify(input.text, {"cert": input.key})[0]`, 400,
			func(i int) string {
				claims := fmt.Sprintf(`{"sub":"%d","more":%q}`, i, strings.Repeat("x", 30<<10))
				return header + "." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + "." + strings.Repeat("A", 86)
			},
		},
		{
			"long patterns", `allow if not regex.match(input.text, "y")`, 30,
			func(i int) string { return fmt.Sprint(i, strings.Repeat("x", 100<<10)) },
		},
		{
			"patterns with counts", `allow if not regex.match(input.text, "y")`, 30,
			func(i int) string { return fmt.Sprint(i, strings.Repeat(".{1000}", 20)) },
		},
		{
			"long globs", `allow if not glob.match(input.text, ["/"], "y")`, 200,
			func(i int) string { return fmt.Sprint(i, strings.Repeat("x", 100<<10)) },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := prepare(t, c.rule, rego.Options{Timeout: time.Minute})
			before := heap()
			for i := range c.times {
				if got, err := q.Eval(t.Context(), value(t, map[string]any{"text": c.input(i), "key": key}), now); got != true {
					t.Fatal(got, err)
				}
			}
			if grown := heap() - before; grown > most {
				t.Errorf("%d KiB are kept", grown>>10)
			}
			runtime.KeepAlive(q)
		})
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools hold goes with the second
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
