package controlplane_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/identity/ca"
)

func TestBadChangeLeavesEverythingAsItWas(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ file, text, want string }{
		"a misspelt key":        {"orders", ordersYAML + "usess: []\n", "usess"},
		"no YAML":               {"orders", "}", "YAML"},
		"a reference to nobody": {"orders", strings.Replace(ordersYAML, "[inventory]", "[nobody]", 1), "nobody"},
		"another trust domain":  {"mesh", strings.Replace(meshYAML, "shop.example", "other.example", 1), "trust domain cannot change"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, shop())
			c := r.open(orders)
			subscribeAll(c, held{})
			before := r.status().Views
			r.write(tt.file, tt.text)
			r.until("the fault shows", func() bool { return !r.status().Documents.Valid })
			s := r.status()
			if !strings.Contains(strings.Join(s.Documents.Faults, "\n"), tt.want) || s.Documents.Served != 4 {
				t.Errorf("documents %+v, want a fault with %q", s.Documents, tt.want)
			}
			for i, v := range s.Views {
				if v != before[i] {
					t.Errorf("view %+v, was %+v", v, before[i])
				}
			}
			if r.metric("chancery_documents_valid") != 0 || r.metric("chancery_documents_rejected_total") != 1 {
				t.Error("metrics do not show it")
			}
			c.Quiet(quiet)

			r.write(tt.file, shop()[tt.file])
			r.until("all is well again", func() bool { return r.status().Documents.Valid })
			if r.metric("chancery_documents_valid") != 1 {
				t.Error("metrics do not show that it is mended")
			}
			c.Quiet(quiet)
		})
	}
}

func TestRestartOverBrokenDocuments(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	h := held{}
	c := r.open(gateway)
	subscribeAll(c, h)
	r.until("a copy is kept", func() bool { _, err := os.Stat(r.state + "/documents.json"); return err == nil })
	r.stop()
	r.write("orders", "}")
	r.start()
	if got := subscribeAll(r.open(gateway), h); len(got) != 0 {
		t.Errorf("sent %v", got)
	}
	s := r.status()
	if s.Documents.Valid || !s.Documents.Restored || len(s.Documents.Faults) != 1 || s.Documents.Served != 4 {
		t.Errorf("documents %+v", s.Documents)
	}
	if !r.log.has("last good documents of an earlier process are served") || r.metric("chancery_documents_valid") != 0 {
		t.Error("nobody hears of it")
	}
	r.write("orders", ordersYAML)
	r.until("all is well again", func() bool { d := r.status().Documents; return d.Valid && !d.Restored })
}

func TestStartWithoutAnyGoodDocuments(t *testing.T) {
	t.Parallel()
	r := start(t, map[string]string{"mesh": "}"})
	r.until("the fault shows", func() bool { return r.log.has("documents not valid") })
	if err := r.server.Ready(); err == nil {
		t.Error("ready with nothing to serve")
	}
	for name, text := range shop() {
		r.write(name, text)
	}
	subscribeAll(r.open(orders), held{})
	r.until("it is ready", func() bool { return r.server.Ready() == nil })
}

// What keeps documents from being served may pass, though they stay the same.
func TestServingIsTriedAgain(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]bool{"documents that are there": false, "those of an earlier process": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, shop())
			r.dial(orders)
			r.stop()
			ca := r.state + "/ca"
			if err := os.Rename(ca, ca+".away"); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(ca, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if broken {
				r.write("orders", "}")
			}
			r.start()
			r.until("the fault shows", func() bool { return r.log.has("documents not valid") })
			controlplane.Tidy(r.server)
			if s := r.status(); s.Documents.Valid || s.Documents.Restored || len(s.Documents.Faults) == 0 || len(s.Views) != 0 {
				t.Errorf("documents %+v", s.Documents)
			}
			if err := os.Remove(ca); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(ca+".away", ca); err != nil {
				t.Fatal(err)
			}
			controlplane.Tidy(r.server)
			s := r.status()
			if s.Documents.Valid == broken || s.Documents.Restored != broken || s.Documents.Served != 4 || len(s.Views) != 3 {
				t.Errorf("documents %+v", s.Documents)
			}
			if got := r.metric("chancery_documents_rejected_total"); got != 1 {
				t.Errorf("told %v times", got)
			}
		})
	}
}

// But to find that keys do not decrypt takes long, and everybody waits.
func TestSealedAuthorityIsNotTriedAllTheTime(t *testing.T) {
	t.Parallel()
	sealedWith := func(secret string) func(*controlplane.Config) {
		return func(c *controlplane.Config) { c.Authority.Key = ca.KeyProtection(secret) }
	}
	r := start(t, shop(), sealedWith("correct horse battery staple"))
	until := func(ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) { // scrypt takes its time under the race detector
				t.Fatal("waited in vain")
			}
		}
	}
	until(func() bool { return r.log.has("documents served") })
	r.stop()
	r.options = append(r.options, sealedWith("incorrect horse battery staple"))
	r.start()
	until(func() bool { return r.log.has("does not decrypt") })
	// Were it tried now, it would open.
	if err := os.RemoveAll(r.state + "/ca"); err != nil {
		t.Fatal(err)
	}
	controlplane.Tidy(r.server)
	if s := r.status(); s.Documents.Valid || !strings.Contains(strings.Join(s.Documents.Faults, ""), "does not decrypt") {
		t.Errorf("documents %+v", s.Documents)
	}
}

func TestOnlyOneControlPlaneForARunDirectory(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	subscribeAll(r.open(orders), held{})
	first := r.server
	config := r.config()
	config.Registerer = nil
	second, err := controlplane.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("Run: %v", err)
	}
	if err := first.Ready(); err != nil {
		t.Error(err)
	}
	r.stop()
	if _, err := os.Stat(controlplane.AdminSocket(r.run)); !os.IsNotExist(err) {
		t.Errorf("the admin socket is left: %v", err)
	}
}

func TestRunDirectoryThatOthersWriteToIsRefused(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	config := r.config()
	config.Registerer, config.StateDir, config.RunDir = nil, t.TempDir()+"/state", t.TempDir()
	for _, mode := range []os.FileMode{0o777, 0o770, 0o777 | os.ModeSticky} {
		if err := os.Chmod(config.RunDir, mode); err != nil {
			t.Fatal(err)
		}
		server, err := controlplane.New(config)
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "chmod go-w "+config.RunDir) {
			t.Errorf("%v: %v", mode, err)
		}
	}
}
