package discovery_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/chancery-mesh/chancery/discovery"
)

// instances returns one for each letter of ids.
func instances(ids string) []discovery.Instance {
	var all []discovery.Instance
	for _, id := range ids {
		all = append(all, discovery.Instance{
			ID:      string(id),
			Address: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(id)),
			Weight:  1, Health: discovery.Passing,
		})
	}
	return all
}

func ids(all []discovery.Instance) string {
	var b strings.Builder
	for _, i := range all {
		b.WriteString(i.ID)
	}
	return b.String()
}

func newKeeper(t *testing.T, c discovery.KeeperConfig) *discovery.Keeper {
	t.Helper()
	k, err := discovery.NewKeeper(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// good returns an answer with evidence that nothing speaks against.
func good(index uint64, ids string) discovery.Answer {
	return discovery.Answer{Instances: instances(ids), KnownLeader: true, Index: index}
}

func noLeader(a discovery.Answer) discovery.Answer { a.KnownLeader = false; return a }
func stale(a discovery.Answer) discovery.Answer {
	a.LastContact = 5*time.Second + time.Millisecond
	return a
}
func filtered(a discovery.Answer) discovery.Answer { a.Filtered = true; return a }

// step is one answer on service "orders" (or a failure), after a while.
type step struct {
	after  time.Duration
	answer discovery.Answer
	fail   bool
	want   string
	reason string
}

func TestKeeper(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"believes additions and changes", []step{
			{answer: good(1, "b"), want: "b"},
			{answer: good(2, "cab"), want: "abc"},
		}},
		{"a service without instances is a fact", []step{
			{answer: good(1, ""), want: ""},
		}},
		{"one instance may leave", []step{
			{answer: good(1, "abc"), want: "abc"},
			{answer: good(2, "bc"), want: "bc"},
		}},
		{"the only instance may leave", []step{
			{answer: good(1, "a"), want: "a"},
			{answer: good(2, ""), want: ""},
		}},
		{"less than half may leave", []step{
			{answer: good(1, "abcde"), want: "abcde"},
			{answer: good(2, "cde"), want: "cde"},
		}},
		{"half may not", []step{
			{answer: good(1, "abcd"), want: "abcd"},
			{answer: good(2, "cd"), want: "abcd", reason: discovery.ReasonMass},
		}},
		{"half may not in steps either", []step{
			{answer: good(1, "abcd"), want: "abcd"},
			{answer: good(2, "bcd"), want: "bcd"},
			{after: 10 * time.Second, answer: good(3, "cd"), want: "bcd", reason: discovery.ReasonMass},
		}},
		{"but may when it takes longer", []step{
			{answer: good(1, "abcd"), want: "abcd"},
			{answer: good(2, "bcd"), want: "bcd"},
			{after: 10*time.Second + 1, answer: good(3, "cd"), want: "cd"},
			{after: 10*time.Second + 1, answer: good(4, "d"), want: "d"},
		}},
		{"N09: one that comes and goes is one", []step{
			{answer: good(1, "abc"), want: "abc"},
			{answer: good(2, "bc"), want: "bc"},
			{answer: good(3, "abc"), want: "abc"},
			{answer: good(4, "bc"), want: "bc"},
			{answer: good(5, "abc"), want: "abc"},
			{answer: good(6, "ab"), want: "ab"},
		}},
		{"N04: an empty list wipes nothing", []step{
			{answer: good(1, "abcd"), want: "abcd"},
			{answer: good(2, ""), want: "abcd", reason: discovery.ReasonMass},
			{answer: good(3, "abcd"), want: "abcd"},
		}},
		{"replaced at once: old and new stay until the old are believed gone", []step{
			{answer: good(1, "ab"), want: "ab"},
			{answer: good(2, "cd"), want: "abcd", reason: discovery.ReasonMass},
			{after: time.Hour - 1, answer: good(3, "cd"), want: "abcd", reason: discovery.ReasonMass},
			{after: 1, answer: good(3, "cd"), want: "cd"},
		}},
		{"while many are held one more may leave", []step{
			{answer: good(1, "abcdef"), want: "abcdef"},
			{answer: good(2, "ef"), want: "abcdef", reason: discovery.ReasonMass},
			{after: time.Minute, answer: good(3, "f"), want: "abcdf", reason: discovery.ReasonMass},
			{after: time.Hour - time.Minute, answer: good(3, "f"), want: "f"},
		}},
		{"what comes back is held anew when it goes again", []step{
			{answer: good(1, "abcd"), want: "abcd"},
			{answer: good(2, ""), want: "abcd", reason: discovery.ReasonMass},
			{after: time.Minute, answer: good(3, "abcd"), want: "abcd"},
			{after: time.Hour, answer: good(4, ""), want: "abcd", reason: discovery.ReasonMass},
		}},
		{"N05: without a leader nothing is believed", []step{
			{answer: good(1, "ab"), want: "ab"},
			{answer: noLeader(good(2, "b")), want: "ab", reason: discovery.ReasonNoLeader},
			{answer: noLeader(good(2, "abc")), want: "ab", reason: discovery.ReasonNoLeader},
			{answer: good(2, "b"), want: "b"},
		}},
		{"N05: nor long after the leader's last word", []step{
			{answer: good(1, "ab"), want: "ab"},
			{answer: stale(good(2, "b")), want: "ab", reason: discovery.ReasonStale},
			{answer: good(2, "b"), want: "b"},
		}},
		{"N06: ACLs can hide, not invent", []step{
			{answer: good(1, "ab"), want: "ab"},
			{answer: filtered(good(2, "bc")), want: "abc", reason: discovery.ReasonFiltered},
			{after: 2 * time.Hour, answer: filtered(good(2, "")), want: "abc", reason: discovery.ReasonFiltered},
			{answer: good(2, "bc"), want: "bc"},
		}},
		{"N07: same index, less instances", []step{
			{answer: good(7, "abc"), want: "abc"},
			{answer: good(7, "bc"), want: "abc", reason: discovery.ReasonNoChange},
			{answer: good(8, "bc"), want: "bc"},
		}},
		{"N07: same index for an hour", []step{
			{answer: good(7, "abc"), want: "abc"},
			{answer: good(7, "bc"), want: "abc", reason: discovery.ReasonNoChange},
			{after: 59 * time.Minute, answer: good(7, "bc"), want: "abc", reason: discovery.ReasonNoChange},
			{after: time.Minute, answer: good(7, "bc"), want: "bc"},
		}},
		{"N07: no index at all", []step{
			{answer: good(0, "abc"), want: "abc"},
			{answer: good(0, "bc"), want: "abc", reason: discovery.ReasonNoChange},
		}},
		{"N07, N11: an older state brings nothing back and takes nothing away", []step{
			{answer: good(9, "ab"), want: "ab"},
			{answer: good(5, "bc"), want: "ab", reason: discovery.ReasonBackward},
			{answer: good(9, "ab"), want: "ab"},
			{answer: good(5, "bc"), want: "ab", reason: discovery.ReasonBackward},
		}},
		{"a restored registry is believed from its next change on", []step{
			{answer: good(9, "ab"), want: "ab"},
			{answer: good(5, "bc"), want: "ab", reason: discovery.ReasonBackward},
			{answer: good(5, "bc"), want: "abc", reason: discovery.ReasonNoChange},
			{answer: good(6, "bc"), want: "bc"},
		}},
		{"N08: silence keeps the last good", []step{
			{answer: good(1, "ab"), want: "ab"},
			{fail: true, want: "ab", reason: discovery.ReasonSilent},
			{after: 24 * time.Hour, fail: true, want: "ab", reason: discovery.ReasonSilent},
			{answer: good(2, "b"), want: "b"},
		}},
		{"an hour of doubt is not an hour of evidence", []step{
			{answer: good(1, "abcd"), want: "abcd"},
			{answer: good(2, ""), want: "abcd", reason: discovery.ReasonMass},
			{after: 59 * time.Minute, fail: true, want: "abcd", reason: discovery.ReasonSilent},
			{after: time.Minute, answer: good(2, ""), want: "abcd", reason: discovery.ReasonMass},
			{after: 59 * time.Minute, answer: noLeader(good(2, "")), want: "abcd", reason: discovery.ReasonNoLeader},
			{after: time.Minute, answer: good(2, ""), want: "abcd", reason: discovery.ReasonMass},
			{after: 59 * time.Minute, answer: good(2, ""), want: ""},
		}},
		{"a doubtful first answer is better than none", []step{
			{answer: noLeader(good(1, "ab")), want: "ab", reason: discovery.ReasonNoLeader},
			{answer: good(1, "ab"), want: "ab"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				k := newKeeper(t, discovery.KeeperConfig{})
				for n, s := range c.steps {
					time.Sleep(s.after)
					var u discovery.Update
					if s.fail {
						u, _ = k.Fail("orders", errors.New("down"))
					} else {
						u, _ = k.Judge("orders", s.answer)
					}
					if u.Service != "orders" || ids(u.Instances) != s.want || u.Reason != s.reason || u.Held != (s.reason != "") {
						t.Errorf("step %d: got %q, held %v %q, want %q, %q",
							n, ids(u.Instances), u.Held, u.Reason, s.want, s.reason)
					}
				}
			})
		})
	}
}

func TestKeeperKnowsNothing(t *testing.T) {
	t.Parallel()
	k := newKeeper(t, discovery.KeeperConfig{})
	for name, judge := range map[string]func() (discovery.Update, bool){
		"empty without a leader": func() (discovery.Update, bool) { return k.Judge("orders", noLeader(good(1, ""))) },
		"empty by ACLs":          func() (discovery.Update, bool) { return k.Judge("orders", filtered(good(1, ""))) },
		"silence":                func() (discovery.Update, bool) { return k.Fail("orders", errors.New("down")) },
	} {
		if u, news := judge(); news {
			t.Errorf("%s: %+v is news", name, u)
		}
	}
	if _, news := k.Judge("orders", good(1, "")); !news {
		t.Error("empty on good evidence is not news")
	}
}

// Row N10 of the attack catalogue, over many services of one instance each.
func TestKeeperCountsAllServices(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(t, discovery.KeeperConfig{})
		service := func(n int) string { return fmt.Sprintf("service-%d", n) }
		for n := range 100 {
			k.Judge(service(n), good(1, "a"))
		}
		left := 100
		for n := range 90 {
			u, _ := k.Judge(service(n), good(2, ""))
			left -= 1 - len(u.Instances)
		}
		if left != 51 {
			t.Errorf("after 90 of 100 vanished at once %d are left, want 51", left)
		}
		time.Sleep(time.Minute)
		if u, _ := k.Judge(service(95), good(2, "")); len(u.Instances) != 0 {
			t.Error("a single one that leaves later is held")
		}
		for n := range 100 {
			k.Forget(service(n))
		}
		k.Judge("orders", good(1, "ab"))
		time.Sleep(time.Minute)
		if u, _ := k.Judge("orders", good(2, "")); !u.Held {
			t.Error("forgotten services still count")
		}
	})
}

func TestKeeperTellsNewsOnce(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	r := prometheus.NewPedanticRegistry()
	k := newKeeper(t, discovery.KeeperConfig{Logger: slog.New(slog.NewTextHandler(&log, nil)), Registerer: r})
	for n, c := range []struct {
		answer discovery.Answer
		news   bool
	}{
		{good(1, "ab"), true},
		{good(2, "ab"), false},
		{noLeader(good(2, "")), true},
		{noLeader(good(2, "")), false},
		{good(2, "ab"), true},
		{noLeader(good(2, "")), true},
	} {
		if _, news := k.Judge("orders", c.answer); news != c.news {
			t.Errorf("answer %d: news = %v", n, news)
		}
	}
	if n := strings.Count(log.String(), `level=WARN msg="registry not believed" service=orders`); n != 2 {
		t.Errorf("warned %d times, want 2:\n%s", n, log.String())
	}
	want := "# HELP chancery_discovery_held Whether the registry's last answer on a service was not wholly believed (1) or was (0).\n" +
		"# TYPE chancery_discovery_held gauge\nchancery_discovery_held{service=\"orders\"} 1\n"
	if err := testutil.GatherAndCompare(r, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	k.Forget("orders")
	if n, _ := testutil.GatherAndCount(r); n != 0 {
		t.Error("a forgotten service keeps its metric")
	}
}
