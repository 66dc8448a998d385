// Package breaker protects upstreams from too much, and Chancery from upstreams
// that fail.
//
// It has two halves. What a route says about breakers, outlier detection,
// retries and rate limits becomes Envoy's own settings here. And every call
// that Chancery itself makes to another system (Consul, identity providers)
// goes through a [Guard], which gives it a deadline, a circuit breaker and
// metrics:
//
//	g := breaker.New(breaker.Config{Name: "idp-staff", Timeout: 5 * time.Second})
//	client := breaker.HTTP(g, nil)
//	...
//	var set JWKS
//	err := client.GetJSON(ctx, url, &set)
//
// The package does not know what is asked or why. It refuses to retry and to
// keep answers, which only the caller can judge: the last good one is kept where
// it outlives the process (keys of providers in controlplane, instances in
// discovery).
package breaker
