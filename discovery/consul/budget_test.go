package consul_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/chancery-mesh/chancery/discovery"
	"github.com/chancery-mesh/chancery/discovery/consul"
	"github.com/chancery-mesh/chancery/internal/consultest"
	"github.com/chancery-mesh/chancery/internal/registrytest"
)

func names(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("service-%d", i)
	}
	return all
}

// inbox keeps the number of instances that was reported last of each service.
type inbox struct {
	mu    sync.Mutex
	sizes map[string]int
}

func (b *inbox) put(u discovery.Update) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sizes[u.Service] = len(u.Instances)
}

func (b *inbox) size(service string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sizes[service]
}

// run runs a registry until the test ends.
func run(t *testing.T, r *consul.Registry) *inbox {
	t.Helper()
	b := &inbox{sizes: map[string]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx, b.put)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return b
}

func TestBudget(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ services, budget int }{
		{1, 20}, {5, 128}, {20, 20}, {21, 20}, {100, 10}, {50, 1},
	} {
		t.Run(fmt.Sprintf("%d services on %d", c.services, c.budget), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake := consultest.NewFake(t)
				r := open(t, consul.Config{MaxConnections: c.budget}, fake.Config())
				all := names(c.services)
				for _, s := range all {
					fake.Set(t, s, registrytest.Instance(1, true))
				}
				r.Want(all)
				b := run(t, r)
				time.Sleep(3 * time.Second)
				synctest.Wait()
				if n := fake.Connections(); n > c.budget {
					t.Errorf("%d connections, want at most %d", n, c.budget)
				}
				if err := r.Ready(); err != nil {
					t.Error(err)
				}
				last := all[len(all)-1]
				fake.Set(t, last, registrytest.Instance(1, true), registrytest.Instance(2, true))
				time.Sleep(time.Second)
				synctest.Wait()
				if n := b.size(last); n != 2 {
					t.Errorf("%d instances, want 2", n)
				}
			})
		})
	}
}

func TestWantLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := consultest.NewFake(t)
		asked := map[string]int{}
		var mu sync.Mutex
		fake.Break(func(healthy http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				asked[r.URL.Path[len("/v1/health/service/"):]]++
				mu.Unlock()
				healthy.ServeHTTP(w, r)
			})
		})
		r := open(t, consul.Config{MaxConnections: 3, MaxWait: time.Hour}, fake.Config())
		r.Want(names(3))
		run(t, r)
		count := func() (total, most int) {
			time.Sleep(time.Minute)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			for _, n := range asked {
				total, most = total+n, max(most, n)
			}
			clear(asked)
			return total, most
		}
		if total, most := count(); total != 6 || most != 2 {
			t.Errorf("three on three: asked %d times, %d of one, want 6 and 2", total, most)
		}
		r.Want(names(4))
		if total, most := count(); total < 130 || total > 160 || most > 80 {
			t.Errorf("a fourth: asked %d times, %d of one, want about 150 on two of four", total, most)
		}
		r.Want(names(3))
		count()
		if total, _ := count(); total != 0 {
			t.Errorf("three again: asked %d times in a minute, want 0", total)
		}
		r.Want(names(3)[:2])
		if total, _ := count(); total != 0 {
			t.Errorf("only two: asked %d times in a minute, want 0", total)
		}
		r.Want(names(6))
		r.Want([]string{"service-0", "service-1", "service-4"})
		count()
		if total, _ := count(); total != 0 {
			t.Errorf("three that were on two connections: asked %d times in a minute, want 0", total)
		}
	})
}

// Workers that all pause keep their connections, until Run ends.
func TestConnectionsStayOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := consultest.NewFake(t)
		fake.Break(func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("[]")) })
		})
		r := open(t, consul.Config{MaxConnections: 10}, fake.Config())
		r.Want(names(10))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+time.Second/2)
		defer cancel()
		if err := r.Run(ctx, func(discovery.Update) {}); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if dialled, left := fake.Dialled(), fake.Connections(); dialled != 10 || left != 0 {
			t.Errorf("dialled %d times, %d connections are left, want 10 and 0", dialled, left)
		}
	})
}

// An answer that waits to be delivered when its service is not wanted any more
// is dropped.
func TestWantHoldsForAnswersUnderWay(t *testing.T) {
	t.Parallel()
	fake := consultest.NewFake(t)
	r := open(t, consul.Config{}, fake.Config())
	r.Want(names(2))
	first, resume := make(chan string), make(chan struct{})
	var updates []string
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx, func(u discovery.Update) {
			if updates = append(updates, u.Service); len(updates) == 1 {
				first <- u.Service
				<-resume
			}
		})
	}()
	kept := <-first
	time.Sleep(50 * time.Millisecond)
	r.Want([]string{kept})
	close(resume)
	time.Sleep(50 * time.Millisecond)
	cancel()
	<-done
	if len(updates) != 1 {
		t.Errorf("updates %v, want %v alone", updates, kept)
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "consul.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	fake := consultest.NewFake(t)
	server := &http.Server{Handler: fake}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	fake.Set(t, "orders", registrytest.Instance(1, true))
	r := open(t, consul.Config{}, &api.Config{Address: "unix://" + path})
	r.Want([]string{"orders"})
	registrytest.Watch(t, r).Await("orders", registrytest.Instance(1, true))
}

// The budget, and how soon a change is seen, on a real Consul.
func TestBudgetConsul(t *testing.T) {
	server := consultest.Start(t)
	all := names(300)
	for _, s := range all {
		server.Set(t, s, registrytest.Instance(1, true))
	}
	for _, c := range []struct {
		name     string
		services []string
		budget   int
		within   time.Duration
	}{
		{"one of 300 on 20 connections", all, 20, 5 * time.Second},
		{"one of 300 on 128 connections", all, 128, 5 * time.Second},
		{"one alone", all[299:], 128, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := open(t, consul.Config{MaxConnections: c.budget}, server.Config())
			r.Want(c.services)
			b := run(t, r)
			eventually(t, 20*time.Second, func() bool { return r.Ready() == nil })
			var took []time.Duration
			for n := range 6 {
				join := n%2 == 0
				instances, want := []discovery.Instance{registrytest.Instance(1, true)}, 1
				if join {
					instances, want = append(instances, registrytest.Instance(2, true)), 2
				}
				server.Set(t, all[299], instances...)
				start := time.Now()
				eventually(t, 10*time.Second, func() bool { return b.size(all[299]) == want })
				took = append(took, time.Since(start))
			}
			t.Logf("seen after %v", took)
			slices.Sort(took)
			if median := took[len(took)/2]; median > c.within {
				t.Errorf("seen after %v, want at most %v", median, c.within)
			}
		})
	}
}

func eventually(t *testing.T, within time.Duration, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v", within)
		}
	}
}
