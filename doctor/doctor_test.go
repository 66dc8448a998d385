package doctor_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/doctor"
)

// finding is what a test expects: what is a part of the text.
type finding struct {
	severity    doctor.Severity
	where, what string
}

func expect(t *testing.T, got []doctor.Finding, want ...finding) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("found %+v, want %+v", got, want)
		return
	}
	for i, f := range got {
		w := want[i]
		if f.Severity != w.severity || f.Where != w.where || !strings.Contains(f.What, w.what) || f.Mend == "" {
			t.Errorf("found %+v, want %+v", f, w)
		}
	}
}

// listen listens at a free port of ip.
func listen(t *testing.T, ip string) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}
