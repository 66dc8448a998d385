package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// figures are what is measured. CPU is of the server's process; a ratio is the
// median of the rounds' ratios.
type figures struct {
	Rounds int `json:"rounds"`

	NullCPU        float64 `json:"null_cpu_us"`
	NullServiceCPU float64 `json:"null_service_cpu_us"`
	W1CPU          float64 `json:"w1_cpu_us"`
	W2CPU          float64 `json:"w2_cpu_us"`
	W3CPU          float64 `json:"w3_cpu_us"`
	W3RepeatCPU    float64 `json:"w3_repeat_cpu_us"`

	W1         float64 `json:"w1_cpu_ratio"`
	W2         float64 `json:"w2_cpu_ratio"`
	W3         float64 `json:"w3_cpu_ratio"`
	W3Repeat   float64 `json:"w3_repeat_cpu_ratio"`
	FloorW1    float64 `json:"floor_w1_cpu_ratio"`
	FloorW2    float64 `json:"floor_w2_cpu_ratio"`
	NewVsFloor float64 `json:"new_token_vs_floor"`

	// CPU of Envoy and server together, for each request through Envoy; nil without
	// one.
	EnvoyNull    *float64 `json:"envoy_null_cpu_us"`
	EnvoyW1      *float64 `json:"envoy_w1_cpu_us"`
	EnvoyW2      *float64 `json:"envoy_w2_cpu_us"`
	EnvoyW1Above *float64 `json:"envoy_w1_above_null_us"`
	EnvoyW2Above *float64 `json:"envoy_w2_above_null_us"`

	Checks int   `json:"checks"`
	Wrong  int64 `json:"wrong"`
}

func newFigures(rows, through table, rounds int) figures {
	f := figures{
		Rounds:  rounds,
		NullCPU: rows.row("null").cpu(), NullServiceCPU: rows.row("null-service").cpu(),
		W1CPU: rows.row("w1").cpu(), W2CPU: rows.row("w2").cpu(), W3CPU: rows.row("w3").cpu(), W3RepeatCPU: rows.row("w3-repeat").cpu(),
		W1: rows.row("w1").ratio(), W2: rows.row("w2").ratio(), W3: rows.row("w3").ratio(), W3Repeat: rows.row("w3-repeat").ratio(),
		FloorW1: rows.row("floor-w1").ratio(), FloorW2: rows.row("floor-w2").ratio(), NewVsFloor: rows.row("new").ratio(),
	}
	if through != nil {
		w1, w2 := through.row("envoy-w1"), through.row("envoy-w2")
		f.EnvoyNull, f.EnvoyW1, f.EnvoyW2 = new(through.row("envoy-null").cpu()), new(w1.cpu()), new(w2.cpu())
		f.EnvoyW1Above, f.EnvoyW2Above = new(w1.above()), new(w2.above())
	}
	for _, r := range slices.Concat(rows, through) {
		for _, t := range r.turns {
			f.Checks += t.checks
			f.Wrong += t.wrong
		}
	}
	return f
}

// enoughRounds are those that medians are believed of.
const enoughRounds = 9

// unjudged says which promises the figures tell nothing of, empty if there are
// none.
func (f figures) unjudged() string {
	switch {
	case f.Rounds < enoughRounds:
		return fmt.Sprintf("Fewer than %d rounds: only whether answers are right is judged, and no figure.", enoughRounds)
	case f.EnvoyW1Above == nil || f.EnvoyW2Above == nil:
		return "What is promised through Envoy is not measured, and not judged."
	}
	return ""
}

// promises says which of Chancery's promises the figures break.
func (f figures) promises() error {
	var broken []error
	for _, p := range []struct {
		what string
		is   *float64
		most float64
	}{
		{"W1 against null", &f.W1, 1.3},
		{"W2 against null", &f.W2, 1.95},
		{"W3 against null", &f.W3, 2.6},
		{"W3 with the same Passport against null", &f.W3Repeat, 1.4},
		{"a new token against the floor", &f.NewVsFloor, 1.15},
		{"W1 through Envoy, µs above null", f.EnvoyW1Above, 20},
		{"W2 through Envoy, µs above null", f.EnvoyW2Above, 45},
	} {
		if f.Rounds >= enoughRounds && p.is != nil && *p.is > p.most {
			broken = append(broken, fmt.Errorf("%s: %.2f, promised is at most %.2f", p.what, *p.is, p.most))
		}
	}
	if f.Wrong > 0 {
		broken = append(broken, fmt.Errorf("%d of %d answers were wrong", f.Wrong, f.Checks))
	}
	return errors.Join(broken...)
}

// cpu returns the median of microseconds per check.
func (r *row) cpu() float64 {
	return r.median(func(_ int, t turn) float64 { return t.perCheck() })
}

// ratio returns the median of how much more a check costs than at the base in
// the same round; 1 where there is none.
func (r *row) ratio() float64 {
	if r.base == nil {
		return 1
	}
	return r.median(func(i int, t turn) float64 { return t.perCheck() / r.base.turns[i].perCheck() })
}

// above returns the median of microseconds above the base.
func (r *row) above() float64 {
	if r.base == nil {
		return 0
	}
	return r.median(func(i int, t turn) float64 { return t.perCheck() - r.base.turns[i].perCheck() })
}

func (r *row) median(of func(round int, t turn) float64) float64 {
	values := make([]float64, len(r.turns))
	for i, t := range r.turns {
		values[i] = of(i, t)
	}
	slices.Sort(values)
	n := len(values)
	if n == 0 {
		return 0
	}
	return round((values[(n-1)/2] + values[n/2]) / 2)
}

// round keeps what can be believed.
func round(x float64) float64 { return math.Round(x*1000) / 1000 }

// times returns all that took, sorted.
func (r *row) times() (all []time.Duration) {
	for _, t := range r.turns {
		all = append(all, t.times...)
	}
	slices.Sort(all)
	return all
}

// rate returns the median of checks per second.
func (r *row) rate() float64 {
	return r.median(func(_ int, t turn) float64 { return float64(t.checks) / t.took.Seconds() })
}

func (t table) print() {
	fmt.Printf("  %-20s %9s %8s %8s %8s %7s %8s %7s %9s %7s %6s\n", "",
		"checks/s", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs", "allocs", "KB", "× base", "+ µs", "MiB")
	for _, r := range t {
		all := r.times()
		objects := r.median(func(_ int, t turn) float64 { return float64(t.used.Objects) / float64(max(t.checks, 1)) })
		size := r.median(func(_ int, t turn) float64 { return float64(t.used.Bytes) / 1024 / float64(max(t.checks, 1)) })
		rss := r.median(func(_ int, t turn) float64 { return float64(t.used.RSS) / 1024 })
		fmt.Printf("  %-20s %9.0f %8.0f %8.0f %8.0f %7.1f %8.0f %7.1f %9.2f %7.1f %6.0f\n", r.name, r.rate(),
			quantile(all, 0.5), quantile(all, 0.99), quantile(all, 0.999), r.cpu(), objects, size, r.ratio(), r.above(), rss)
	}
	fmt.Println("\n  The base is null with the same checks; that of new tokens is the floor with the same ones.")
}

func (t table) printEdges() {
	fmt.Printf("  %-20s %10s %8s %8s %8s %9s %9s %7s %7s\n", "",
		"requests/s", "p50 µs", "p99 µs", "p99.9 µs", "Envoy µs", "server µs", "sum µs", "+ µs")
	for _, r := range t {
		all := r.times()
		proxy := r.median(func(_ int, t turn) float64 { return t.each(t.envoy) })
		server := r.median(func(_ int, t turn) float64 { return t.each(t.used.CPU) })
		fmt.Printf("  %-20s %10.0f %8.0f %8.0f %8.0f %9.1f %9.1f %7.1f %7.1f\n", r.name, r.rate(),
			quantile(all, 0.5), quantile(all, 0.99), quantile(all, 0.999), proxy, server, r.cpu(), r.above())
	}
}

// quantile returns microseconds: the smallest time that the share q of sorted
// times is not longer than.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := max(int(math.Ceil(q*float64(len(sorted)))), 1)
	return float64(sorted[rank-1].Nanoseconds()) / 1e3
}
