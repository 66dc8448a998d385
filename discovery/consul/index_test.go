package consul_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/discovery/consul"
)

// Row N07: indexes that make naive watchers spin or miss changes.
func TestIndexes(t *testing.T) {
	t.Parallel()
	for name, index := range map[string]string{
		"none": "", "zero": "0", "never another": "7", "back and forth": "alternates", "2^63": "9223372036854775808",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inMesh(t, consul.Config{}, func(m *mesh) {
				m.breakWith(func(w http.ResponseWriter, r *http.Request, healthy http.Handler) {
					value := index
					if value == "alternates" {
						value = []string{"7", "1000"}[m.asked.Load()%2]
					}
					healthy.ServeHTTP(&indexWriter{w, value}, atOnce(r))
				})
				m.after(time.Minute)
				before := m.asked.Load()
				m.after(time.Minute)
				if n := m.asked.Load() - before; n < 30 || n > 61 {
					t.Errorf("asked %d times in a minute", n)
				}
				if got := len(m.last.Load().Instances); got != 4 {
					t.Errorf("%d instances, want 4", got)
				}
				m.mend()
				m.fake.SetIndex(2000)
				m.after(2 * time.Second)
				m.set(1, 2, 3)
				m.after(2 * time.Second)
				m.want("", 1, 2, 3)
			})
		})
	}
}

// atOnce makes a query one that the fake does not let wait.
func atOnce(r *http.Request) *http.Request {
	r = r.Clone(r.Context())
	q := r.URL.Query()
	q.Del("index")
	r.URL.RawQuery = q.Encode()
	return r
}

// indexWriter replaces the index of an answer.
type indexWriter struct {
	http.ResponseWriter
	index string
}

func (w *indexWriter) Write(b []byte) (int, error) {
	w.Header().Set("X-Consul-Index", w.index)
	return w.ResponseWriter.Write(b)
}

// A server that was restored from a snapshot is followed at once, and asked
// again for what it then said.
func TestRestoredServer(t *testing.T) {
	t.Parallel()
	inMesh(t, consul.Config{}, func(m *mesh) {
		m.fake.SetIndex(1000)
		m.after(0)
		m.breakWith(func(w http.ResponseWriter, r *http.Request, healthy http.Handler) {
			if r.URL.Query().Get("index") == "10" {
				<-r.Context().Done()
				return
			}
			healthy.ServeHTTP(&indexWriter{w, "10"}, atOnce(r))
		})
		m.set(1, 2, 3, 4, 5)
		m.after(time.Second)
		m.want("", 1, 2, 3, 4, 5)
	})
}

// An index that goes backwards does not stop what follows.
func TestIndexGoesBackwards(t *testing.T) {
	t.Parallel()
	inMesh(t, consul.Config{}, func(m *mesh) {
		m.fake.SetIndex(1000)
		m.after(time.Hour)
		m.fake.SetIndex(10)
		m.after(time.Hour)
		m.set(1, 2, 3)
		m.after(0)
		m.want("", 1, 2, 3)
	})
}
