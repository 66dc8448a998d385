package rig

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"time"

	"github.com/chancery-mesh/chancery/passport"
)

// Load sends requests at a fixed rate, whatever becomes of them (an open loop),
// and never the same one twice.
type Load struct {
	// Rate is in requests per second.
	Rate int
	URL  string
	// Header of every request.
	Header http.Header
	// TLS says how to speak to the gateway.
	TLS *tls.Config
	// Fresh makes every Fresh-th request open a connection of its own; 0 is none.
	Fresh int
}

// Sample is what became of one request.
type Sample struct {
	// At is when it was sent.
	At   time.Time
	Took time.Duration
	// Status is zero where no answer came.
	Status int
	// Fault is empty for an answer of 200.
	Fault string
	// RequestID is how the mesh's logs call the request.
	RequestID string
	// Fresh says that it went over a new connection.
	Fresh bool
}

// Traffic is a load under way.
type Traffic struct {
	stop    context.CancelFunc
	stopped chan struct{}

	mu      sync.Mutex
	samples []Sample
}

// Start sends until [Traffic.Stop] is called or ctx ends.
func (l Load) Start(ctx context.Context) *Traffic {
	ctx, cancel := context.WithCancel(ctx)
	t := &Traffic{stop: cancel, stopped: make(chan struct{})}
	go func() {
		defer close(t.stopped)
		l.run(ctx, t)
	}()
	return t
}

// Once sends one request of the load.
func (l Load) Once(ctx context.Context) Sample {
	client := l.client(false)
	defer client.CloseIdleConnections()
	return l.send(ctx, client)
}

// client returns one that keeps its connections, or one that never does.
func (l Load) client(fresh bool) *http.Client {
	return &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: l.Rate, DisableKeepAlives: fresh, TLSClientConfig: l.TLS},
	}
}

func (l Load) run(ctx context.Context, t *Traffic) {
	kept, fresh := l.client(false), l.client(true)
	defer kept.CloseIdleConnections()
	var requests sync.WaitGroup
	defer requests.Wait()
	start := time.Now()
	for n := 0; ; n++ {
		due := start.Add(time.Duration(n) * time.Second / time.Duration(l.Rate))
		client := kept
		if l.Fresh > 0 && n%l.Fresh == 0 {
			client = fresh
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(due)):
			// Stopping the load does not cut requests short.
			requests.Go(func() { t.add(l.send(context.WithoutCancel(ctx), client)) })
		}
	}
}

// onceOnly is an empty body that cannot be read again, which keeps
// [http.Transport] from sending a request again by itself.
type onceOnly struct{}

func (onceOnly) Read([]byte) (int, error) { return 0, io.EOF }

func (l Load) send(ctx context.Context, client *http.Client) (s Sample) {
	s.At = time.Now()
	defer func() { s.Took = time.Since(s.At) }()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) { s.Fresh = !c.Reused },
	})
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.URL, onceOnly{})
	if err != nil {
		s.Fault = err.Error()
		return s
	}
	r.Header = l.Header.Clone()
	resp, err := client.Do(r)
	if err != nil {
		s.Fault = err.Error()
		return s
	}
	defer resp.Body.Close()
	s.Status, s.RequestID = resp.StatusCode, resp.Header.Get(passport.RequestIDHeader)
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		s.Fault = err.Error()
	case s.Status != http.StatusOK:
		s.Fault = resp.Status + ": " + string(body)
	}
	return s
}

func (t *Traffic) add(s Sample) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.samples = append(t.samples, s)
}

// Stop waits for the requests that are under way and returns what became of
// all.
func (t *Traffic) Stop() Samples {
	t.stop()
	<-t.stopped
	return t.samples
}

// Samples is what became of a load, in no order.
type Samples []Sample

// Failed returns those that were not answered with 200.
func (s Samples) Failed() Samples {
	var failed Samples
	for _, sample := range s {
		if sample.Fault != "" {
			failed = append(failed, sample)
		}
	}
	return failed
}

// Outage is the longest time in which no request was answered with 200.
func (s Samples) Outage() time.Duration {
	sorted := slices.SortedFunc(slices.Values(s), func(a, b Sample) int { return a.At.Compare(b.At) })
	var longest time.Duration
	good := 0 // the first, since nothing is known of the time before
	for i, sample := range sorted {
		if sample.Fault == "" || i == len(sorted)-1 {
			longest = max(longest, sample.At.Sub(sorted[good].At))
			good = i
		}
	}
	return longest
}
