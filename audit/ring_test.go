package audit_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/chancery-mesh/chancery/audit"
)

func explained(id, decision string) *audit.Explained {
	return &audit.Explained{
		Decision: audit.Decision{ID: id, Decision: decision},
		Trace:    []audit.Step{{What: "rule", Subject: "orders.yaml:12:12", Outcome: "policy_denied"}},
		Values:   []audit.Value{{Path: "user.groups", Text: "[ops]"}},
	}
}

func ids(all []audit.Explained) string {
	var out []string
	for _, e := range all {
		out = append(out, e.ID)
	}
	return strings.Join(out, " ")
}

func TestRingRemembersTheNewest(t *testing.T) {
	t.Parallel()
	r := audit.NewRing(5, 0)
	for n := range 12 {
		r.Add(explained(fmt.Sprint(n), map[bool]string{true: audit.Deny, false: audit.Allow}[n%2 == 0]))
	}
	if got := ids(r.Last(100, nil)); got != "11 10 9 8 7" {
		t.Errorf("all are %s", got)
	}
	denials := func(e *audit.Explained) bool { return e.Decision.Decision == audit.Deny }
	if got := ids(r.Last(1, denials)); got != "10" {
		t.Errorf("the last denial is %s", got)
	}
	if e, ok := r.Find("9"); !ok || e.ID != "9" || e.Trace[0].What != "rule" || len(e.Values) != 1 {
		t.Errorf("found %+v", e)
	}
	if _, ok := r.Find("6"); ok {
		t.Error("found what is forgotten")
	}
}

// What was found does not change when the ring goes on.
func TestRingKeepsWhatWasFound(t *testing.T) {
	t.Parallel()
	r := audit.NewRing(1, 0)
	r.Add(explained("a", audit.Deny))
	found, _ := r.Find("a")
	other := explained("b", audit.Deny)
	other.Trace[0].What, other.Values[0].Path = "other", "other"
	r.Add(other)
	if found.ID != "a" || found.Trace[0].What != "rule" || found.Values[0].Path != "user.groups" {
		t.Errorf("found became %+v", found)
	}
}

// The newest of two decisions with an ID is what was done.
func TestRingFindsTheNewest(t *testing.T) {
	t.Parallel()
	r := audit.NewRing(5, 0)
	r.Add(explained("a", audit.Allow))
	r.Add(explained("a", audit.Deny))
	if e, _ := r.Find("a"); e.Decision.Decision != audit.Deny {
		t.Errorf("found %+v", e)
	}
}

func TestRingIsBoundedByBytes(t *testing.T) {
	t.Parallel()
	r := audit.NewRing(1000, 10<<10)
	for n := range 100 {
		e := explained(fmt.Sprint(n), audit.Deny)
		e.Values[0].Text = strings.Repeat("w", 2000)
		r.Add(e)
	}
	if n := len(r.Last(1000, nil)); n < 2 || n > 5 {
		t.Errorf("%d decisions", n)
	}
	huge := explained("huge", audit.Deny)
	huge.Values[0].Text = strings.Repeat("w", 20<<10)
	r.Add(huge)
	if got := ids(r.Last(1, nil)); got != "99" {
		t.Errorf("the newest is %s", got)
	}
}

func TestRingIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	r := audit.NewRing(50, 0)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := range 500 {
				id := fmt.Sprintf("%d-%d", w, n)
				r.Add(explained(id, audit.Deny))
				r.Find(id)
				r.Last(10, nil)
			}
		})
	}
	wg.Wait()
	if n := len(r.Last(100, nil)); n != 50 {
		t.Errorf("%d decisions", n)
	}
}

func TestNilRingRemembersNothing(t *testing.T) {
	t.Parallel()
	var r *audit.Ring
	r.Add(explained("a", audit.Deny))
	if _, ok := r.Find("a"); ok {
		t.Error("found something")
	}
}

func BenchmarkRingAdd(b *testing.B) {
	r := audit.NewRing(0, 0)
	e := explained("a", audit.Deny)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.Add(e)
		}
	})
}
