package consul_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-mesh/chancery/discovery"
	"github.com/chancery-mesh/chancery/discovery/consul"
	"github.com/chancery-mesh/chancery/internal/consultest"
	"github.com/chancery-mesh/chancery/internal/registrytest"
)

// mesh is a registry in a synctest bubble that watches service "orders" on a
// fake Consul, and what it reported last of it.
type mesh struct {
	*testing.T
	fake     *consultest.Fake
	registry *consul.Registry
	asked    atomic.Int64
	broken   atomic.Bool
	last     atomic.Pointer[discovery.Update]
}

// inMesh runs test in a bubble, with four instances of "orders" already
// reported.
func inMesh(t *testing.T, c consul.Config, test func(*mesh)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &mesh{T: t, fake: consultest.NewFake(t)}
		m.registry = open(t, c, m.fake.Config())
		m.last.Store(&discovery.Update{})
		m.registry.Want([]string{"orders"})
		m.set(1, 2, 3, 4)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			m.registry.Run(ctx, func(u discovery.Update) {
				if u.Service == "orders" {
					m.last.Store(&u)
				}
			})
		}()
		t.Cleanup(func() { cancel(); <-done })
		m.after(0)
		m.want("", 1, 2, 3, 4)
		test(m)
	})
}

func (m *mesh) set(numbers ...uint16) {
	var all []discovery.Instance
	for _, n := range numbers {
		all = append(all, registrytest.Instance(n, true))
	}
	m.fake.Set(m, "orders", all...)
}

// after lets time pass, and all that follows from it.
func (m *mesh) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (m *mesh) want(reason string, numbers ...uint16) {
	m.Helper()
	u := m.last.Load()
	var got []uint16
	for _, i := range u.Instances {
		got = append(got, i.Address.Port()-8000)
	}
	if u.Held != (reason != "") || u.Reason != reason || !slices.Equal(got, numbers) {
		m.Errorf("got %v, held %v %q, want %v, %q", got, u.Held, u.Reason, numbers, reason)
	}
}

// breakWith puts a fault before the fake, and counts the queries from then on.
func (m *mesh) breakWith(fault func(w http.ResponseWriter, r *http.Request, healthy http.Handler)) {
	m.asked.Store(0)
	m.broken.Store(true)
	m.fake.Break(func(healthy http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			m.asked.Add(1)
			if m.broken.Load() {
				fault(w, r, healthy)
				return
			}
			healthy.ServeHTTP(w, r)
		})
	})
}

// mend takes the fault away; nothing else changes.
func (m *mesh) mend() { m.broken.Store(false) }

func TestFollows(t *testing.T) {
	t.Parallel()
	inMesh(t, consul.Config{}, func(m *mesh) {
		m.set(1, 2, 3)
		m.after(0)
		m.want("", 1, 2, 3)
		m.after(24 * time.Hour)
		m.set(1, 2, 3, 9)
		m.after(0)
		m.want("", 1, 2, 3, 9)
	})
}

// Rows N05, N06 and N08 of the attack catalogue: whatever Consul answers
// instead of the truth, the last good instances stay, it is not asked more than
// about once a second, and the truth is seen within five seconds.
func TestFaults(t *testing.T) {
	t.Parallel()
	header := func(name, value string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, healthy http.Handler) {
			rec := httptest.NewRecorder()
			healthy.ServeHTTP(rec, atOnce(r))
			w.Header().Set("X-Consul-Index", rec.Header().Get("X-Consul-Index"))
			w.Header().Set("X-Consul-KnownLeader", "true")
			w.Header().Set("X-Consul-LastContact", "0")
			w.Header().Set(name, value)
			w.Write([]byte("[]"))
		}
	}
	status := func(code int, text string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { http.Error(w, text, code) }
	}
	body := func(text string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("X-Consul-Index", "1000")
			w.Header().Set("X-Consul-KnownLeader", "true")
			w.Write([]byte(text))
		}
	}
	for _, c := range []struct {
		name   string
		fault  func(http.ResponseWriter, *http.Request, http.Handler)
		reason string
	}{
		{"no leader", header("X-Consul-KnownLeader", "false"), discovery.ReasonNoLeader},
		{"long without contact", header("X-Consul-LastContact", "60000"), discovery.ReasonStale},
		{"filtered by ACLs", header("X-Consul-Results-Filtered-By-ACLs", "true"), discovery.ReasonFiltered},
		{"token deleted", status(403, "ACL not found"), discovery.ReasonSilent},
		{"internal error", status(500, "No cluster leader"), discovery.ReasonSilent},
		{"rate limited", status(429, ""), discovery.ReasonSilent},
		{"10 MiB", body(`[{"Node":{"Node":"` + strings.Repeat("a", 10<<20) + `"}}]`), discovery.ReasonSilent},
		{"truncated", body(`[{"Node":{"Node":"a"`), discovery.ReasonSilent},
		{"HTML", body(`<html></html>`), discovery.ReasonSilent},
		{"null", body(`null`), discovery.ReasonSilent},
		{"redirect", func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, "http://elsewhere.test/", http.StatusFound)
		}, discovery.ReasonSilent},
		{"reset", func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }, discovery.ReasonSilent},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			inMesh(t, consul.Config{}, func(m *mesh) {
				m.breakWith(c.fault)
				m.after(time.Second)
				m.want(c.reason, 1, 2, 3, 4)
				m.after(5 * time.Second)
				m.want(c.reason, 1, 2, 3, 4)
				if n := m.asked.Load(); n < 3 || n > 14 {
					t.Errorf("asked %d times in 6s", n)
				}
				m.mend()
				m.after(5 * time.Second)
				m.want("", 1, 2, 3, 4)
				m.set(1, 2, 3)
				m.after(0)
				m.want("", 1, 2, 3)
			})
		})
	}
}

// Row N08: no answer, or one that never ends.
func TestHangs(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request, http.Handler){
		"no answer": func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() },
		"slow body": func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			for r.Context().Err() == nil {
				w.Write([]byte("["))
				w.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(time.Second):
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inMesh(t, consul.Config{MaxWait: 16 * time.Second}, func(m *mesh) {
				m.breakWith(fault)
				// The query that returned at once is followed by one that hangs.
				m.after(16*time.Second + time.Second + 5*time.Second - time.Nanosecond)
				m.want("", 1, 2, 3, 4)
				m.after(time.Nanosecond)
				m.want(discovery.ReasonSilent, 1, 2, 3, 4)
			})
		})
	}
}

// After a failure that changed nothing, what was known before is soon sure.
func TestRecoversAtOnce(t *testing.T) {
	t.Parallel()
	inMesh(t, consul.Config{MaxWait: time.Minute}, func(m *mesh) {
		m.breakWith(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { http.Error(w, "", 500) })
		m.mend()
		m.after(time.Hour)
		m.broken.Store(true)
		for n := 0; !m.last.Load().Held; n++ {
			if m.after(100 * time.Millisecond); n > 1000 {
				t.Fatal("the failure does not show")
			}
		}
		m.mend()
		m.after(5 * time.Second)
		m.want("", 1, 2, 3, 4)
	})
}

// One service that fails is asked less and less, and delays no other.
func TestOneFails(t *testing.T) {
	t.Parallel()
	inMesh(t, consul.Config{}, func(m *mesh) {
		var failed atomic.Int64
		m.breakWith(func(w http.ResponseWriter, r *http.Request, healthy http.Handler) {
			if strings.HasSuffix(r.URL.Path, "/payments") {
				failed.Add(1)
				http.Error(w, "", http.StatusInternalServerError)
				return
			}
			healthy.ServeHTTP(w, r)
		})
		m.registry.Want([]string{"orders", "payments"})
		// Calls that work in between keep the breaker closed.
		flap := func(d time.Duration) {
			for range d / (200 * time.Millisecond) {
				m.set(1, 2, 3, 4, 5)
				m.after(100 * time.Millisecond)
				m.want("", 1, 2, 3, 4, 5)
				m.set(1, 2, 3, 4)
				m.after(100 * time.Millisecond)
				m.want("", 1, 2, 3, 4)
			}
		}
		flap(30 * time.Second)
		if n := failed.Load(); n < 8 || n > 20 {
			t.Errorf("asked for the failing one %d times in 30s", n)
		}
		m.mend()
		m.after(5 * time.Second)
		if err := m.registry.Ready(); err != nil {
			t.Error(err)
		}
		m.broken.Store(true)
		failed.Store(0)
		m.fake.Set(m, "payments", registrytest.Instance(1, true))
		flap(time.Second)
		if n := failed.Load(); n < 2 {
			t.Errorf("asked %d times in the first second of a new failure", n)
		}
	})
}

// The call that may try whether Consul works again must not be one that waits
// for minutes.
func TestHalfOpenDoesNotWait(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	inMesh(t, consul.Config{Registerer: metrics}, func(m *mesh) {
		m.breakWith(func(w http.ResponseWriter, r *http.Request, healthy http.Handler) {
			if strings.HasSuffix(r.URL.Path, "/payments") {
				http.Error(w, "", http.StatusInternalServerError)
				return
			}
			healthy.ServeHTTP(w, r)
		})
		m.registry.Want([]string{"orders", "payments"})
		for n := 0; breakerState(m, metrics) != 2; n++ {
			if m.after(10 * time.Millisecond); n > 1000 {
				t.Fatal("the breaker does not open")
			}
		}
		m.after(1010 * time.Millisecond)
		m.mend()
		m.set(1, 2, 3)
		m.after(5 * time.Second)
		m.want("", 1, 2, 3)
		if err := m.registry.Ready(); err != nil {
			t.Error(err)
		}
	})
}

func breakerState(m *mesh, metrics *prometheus.Registry) float64 {
	families, err := metrics.Gather()
	if err != nil {
		m.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "chancery_outgoing_state" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	m.Fatal("no state")
	return 0
}

// Row N04: an empty list that looks like any other.
func TestEmptyAnswer(t *testing.T) {
	t.Parallel()
	inMesh(t, consul.Config{HoldFor: 2 * time.Hour}, func(m *mesh) {
		m.set()
		m.after(time.Second)
		m.want(discovery.ReasonMass, 1, 2, 3, 4)
		m.after(time.Hour)
		m.want(discovery.ReasonMass, 1, 2, 3, 4)
		m.after(time.Hour + 6*time.Minute)
		m.want("")
	})
}

// Row N09: flapping reaches the mesh, at a bounded rate.
func TestFlapping(t *testing.T) {
	t.Parallel()
	inMesh(t, consul.Config{}, func(m *mesh) {
		m.breakWith(func(w http.ResponseWriter, r *http.Request, healthy http.Handler) { healthy.ServeHTTP(w, r) })
		for range 500 {
			m.set(1, 2, 3, 4, 5)
			m.after(10 * time.Millisecond)
			m.set(1, 2, 3, 4)
			m.after(10 * time.Millisecond)
		}
		if n := m.asked.Load(); n > 10*20+200 {
			t.Errorf("asked %d times in 10s", n)
		}
		m.after(time.Second)
		m.want("", 1, 2, 3, 4)
	})
}

// The secrets of a query and of an error page stay out of the log.
func TestLogKeepsSecrets(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		fake := consultest.NewFake(t)
		fake.Break(func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.Error(w, "token was "+r.Header.Get("X-Consul-Token"), http.StatusForbidden)
			})
		})
		config := *fake.Config()
		config.Token = "0b5ec12e-t0ken"
		r := open(t, consul.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}, &config)
		r.Want([]string{"orders"})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		r.Run(ctx, func(discovery.Update) {})
		if err := r.Ready(); err == nil || strings.Contains(err.Error(), config.Token) {
			t.Errorf("Ready = %v", err)
		}
	})
	if got := log.String(); !strings.Contains(got, "403") || strings.Contains(got, "0b5ec12e-t0ken") {
		t.Errorf("log:\n%s", got)
	}
}

func TestReadySaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := consultest.NewFake(t)
		fake.Break(func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Consul-Index", "5")
				w.Header().Set("X-Consul-KnownLeader", "true")
				w.Header().Set("X-Consul-LastContact", "0")
				w.Header().Set("X-Consul-Results-Filtered-By-ACLs", "true")
				w.Write([]byte("[]"))
			})
		})
		r := open(t, consul.Config{}, fake.Config())
		r.Want([]string{"orders"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r.Run(ctx, func(u discovery.Update) { t.Errorf("reported %+v", u) })
		want := `service "orders" is not known yet: ` + discovery.ReasonFiltered
		if err := r.Ready(); err == nil || err.Error() != want {
			t.Errorf("Ready = %v, want %v", err, want)
		}
	})
}
