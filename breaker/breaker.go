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
//	keys := breaker.NewValue[JWKS](24 * time.Hour)
//	client := breaker.HTTP(g, nil)
//	...
//	var set JWKS
//	if err := client.GetJSON(ctx, url, &set); err == nil {
//		keys.Set(set)
//	}
//	set, age, ok := keys.Get() // the last good one, not older than a day
//
// The package does not know what is asked or why; it refuses to retry, which
// only the caller can decide.
package breaker
