package breaker_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/breaker"
)

func TestOutward(t *testing.T) {
	t.Parallel()
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	t.Cleanup(s.Close)
	port := s.URL[strings.LastIndex(s.URL, ":"):]
	get := func(allowPrivate bool, url string) error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		client := breaker.Outward(allowPrivate)
		defer client.CloseIdleConnections()
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "[::ffff:0:0]"} {
		if err := get(false, "http://"+host+port); err == nil || asked != 0 {
			t.Errorf("%s: %v, asked %d times", host, err, asked)
		}
	}
	for _, host := range []string{"0.0.0.0", "169.254.169.254", "[::ffff:169.254.169.254]"} {
		if err := get(true, "http://"+host+port); err == nil || !strings.Contains(err.Error(), "never called") || asked != 0 {
			t.Errorf("%s: %v, asked %d times", host, err, asked)
		}
	}
	if err := get(true, "http://localhost"+port); err != nil || asked != 1 {
		t.Errorf("allowed: %v, asked %d times", err, asked)
	}
}

// Where a proxy is named, it is the proxy that is called, private or not.
func TestOutwardThroughProxy(t *testing.T) {
	t.Parallel()
	var asked string
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked = r.URL.String() }))
	t.Cleanup(proxy.Close)
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	client := breaker.OutwardBy(http.ProxyURL(at), false)
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://idp.example/keys", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if asked != "http://idp.example/keys" {
		t.Errorf("the proxy was asked for %q", asked)
	}
}
