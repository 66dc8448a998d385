package revocation_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/extauthz/revocation"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

var now = time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)

// revoke returns an entry that ends in an hour.
func revoke(id string, before time.Time, providers ...string) *chancerypb.Revocation {
	return &chancerypb.Revocation{
		Id: id, Providers: providers, Before: timestamppb.New(before), Expires: timestamppb.New(now.Add(time.Hour)),
	}
}

func subject(name string) *chancerypb.Revocation_Subject {
	return &chancerypb.Revocation_Subject{Subject: name}
}

func index(t testing.TB, entries ...*chancerypb.Revocation) *revocation.Index {
	t.Helper()
	ix, err := revocation.New(&chancerypb.Revocations{Sequence: 7, Entries: entries})
	if err != nil {
		t.Fatal(err)
	}
	return ix
}

func TestFind(t *testing.T) {
	t.Parallel()
	alice := revoke("alice", now, "staff", "staff-mobile")
	alice.Whose = subject("alice")
	bob := revoke("bob", now)
	bob.Whose = subject("bob")
	token := revoke("token", now.Add(time.Hour))
	token.Whose = &chancerypb.Revocation_Token{Token: "t-1"}
	client := revoke("client", now)
	client.Whose = &chancerypb.Revocation_Client{Client: "till"}
	tenant := revoke("tenant", now)
	tenant.Whose = &chancerypb.Revocation_Tenant{Tenant: "acme"}
	ix := index(t, alice, bob, token, client, tenant)
	old, fresh := now.Add(-time.Minute), now.Add(time.Second)
	for name, row := range map[string]struct {
		credential revocation.Credential
		at         time.Time
		want       string
	}{
		"nobody":                     {revocation.Credential{}, now, ""},
		"another subject":            {revocation.Credential{Provider: "staff", User: "Alice", IssuedAt: old}, now, ""},
		"subject":                    {revocation.Credential{Provider: "staff", User: "alice", IssuedAt: old}, now, "alice"},
		"other name of the provider": {revocation.Credential{Provider: "staff-mobile", User: "alice", IssuedAt: old}, now, "alice"},
		"by sub":                     {revocation.Credential{Provider: "staff", User: "alice@shop.example", Subject: "alice", IssuedAt: old}, now, "alice"},
		"another provider":           {revocation.Credential{Provider: "partners", User: "alice", IssuedAt: old}, now, ""},
		"no provider":                {revocation.Credential{User: "alice", IssuedAt: old}, now, ""},
		"issued at that time":        {revocation.Credential{Provider: "staff", User: "alice", IssuedAt: now}, now, "alice"},
		"issued since":               {revocation.Credential{Provider: "staff", User: "alice", IssuedAt: fresh}, now, ""},
		"does not tell when":         {revocation.Credential{Provider: "staff", User: "alice"}, now, "alice"},
		"any provider":               {revocation.Credential{Provider: "partners", User: "bob", IssuedAt: old}, now, "bob"},
		"an API key of any":          {revocation.Credential{User: "bob"}, now, "bob"},
		"token":                      {revocation.Credential{Provider: "staff", User: "eve", Token: "t-1", IssuedAt: fresh}, now, "token"},
		"token's ID as a subject":    {revocation.Credential{User: "t-1"}, now, ""},
		"client":                     {revocation.Credential{User: "eve", Client: "till", IssuedAt: old}, now, "client"},
		"tenant":                     {revocation.Credential{User: "eve", Tenant: "acme", IssuedAt: old}, now, "tenant"},
		"in its last moment":         {revocation.Credential{User: "bob", IssuedAt: old}, now.Add(time.Hour), "bob"},
		"ended":                      {revocation.Credential{User: "bob", IssuedAt: old}, now.Add(time.Hour + 1), ""},
	} {
		id, revoked := ix.Find(row.credential, row.at)
		if id != row.want || revoked != (row.want != "") {
			t.Errorf("%s: %q, %v; want %q", name, id, revoked, row.want)
		}
	}
	if ix.Len() != 5 || ix.Sequence() != 7 {
		t.Errorf("%d entries of sequence %d", ix.Len(), ix.Sequence())
	}
}

func TestNothingRevoked(t *testing.T) {
	t.Parallel()
	var none *revocation.Index
	for _, ix := range []*revocation.Index{none, index(t)} {
		if id, revoked := ix.Find(revocation.Credential{User: "alice"}, now); id != "" || revoked {
			t.Errorf("%q, %v", id, revoked)
		}
	}
	if none.Len() != 0 || none.Sequence() != 0 {
		t.Error("nil is not empty")
	}
}

func TestSequenceIsTheNewest(t *testing.T) {
	t.Parallel()
	ix, err := revocation.New(&chancerypb.Revocations{Sequence: 3}, &chancerypb.Revocations{Sequence: 9}, &chancerypb.Revocations{Sequence: 5})
	if err != nil || ix.Sequence() != 9 {
		t.Errorf("sequence %d, %v", ix.Sequence(), err)
	}
}

// An entry of a kind that is to come must not be passed over.
func TestEntryThatIsNotUnderstood(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*chancerypb.Revocation){
		"about nothing":       func(r *chancerypb.Revocation) { r.Whose = nil },
		"about an empty name": func(r *chancerypb.Revocation) { r.Whose = subject("") },
		"without an ID":       func(r *chancerypb.Revocation) { r.Id = "" },
		"without a time":      func(r *chancerypb.Revocation) { r.Before = nil },
		"without an end":      func(r *chancerypb.Revocation) { r.Expires = nil },
	} {
		good, bad := revoke("good", now), revoke("bad", now)
		good.Whose, bad.Whose = subject("alice"), subject("bob")
		spoil(bad)
		if ix, err := revocation.New(&chancerypb.Revocations{Entries: []*chancerypb.Revocation{good, bad}}); err == nil {
			t.Errorf("%s: %+v", name, ix)
		}
	}
}

// Whatever entries there are, a credential is refused if, and only if, one of
// them says so.
func TestCredentialThatAnyEntryMatchesIsRefused(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	moment := func() time.Time { return now.Add(time.Duration(random.IntN(7)-3) * time.Second) }
	refused := 0
	for range 20_000 {
		var entries []*chancerypb.Revocation
		for i := range random.IntN(6) {
			e := revoke(fmt.Sprint(i), moment())
			e.Expires = timestamppb.New(moment())
			for range random.IntN(3) {
				e.Providers = append(e.Providers, pick("staff", "partners"))
			}
			switch value := pick("a", "b"); random.IntN(4) {
			case 0:
				e.Whose = subject(value)
			case 1:
				e.Whose = &chancerypb.Revocation_Token{Token: value}
			case 2:
				e.Whose = &chancerypb.Revocation_Client{Client: value}
			case 3:
				e.Whose = &chancerypb.Revocation_Tenant{Tenant: value}
			}
			entries = append(entries, e)
		}
		c := revocation.Credential{
			Provider: pick("", "staff", "partners"), User: pick("", "a", "b"), Subject: pick("", "a", "b"), Token: pick("", "a", "b"),
			Client: pick("", "a", "b"), Tenant: pick("", "a", "b"),
		}
		if random.IntN(4) > 0 {
			c.IssuedAt = moment()
		}
		want := map[string]bool{}
		for _, e := range entries {
			if matches(e, c) {
				want[e.GetId()] = true
			}
		}
		id, revoked := index(t, entries...).Find(c, now)
		if revoked != (len(want) > 0) || revoked && !want[id] {
			t.Fatalf("%+v by %v: %q, %v; want one of %v", c, entries, id, revoked, want)
		}
		if revoked {
			refused++
		}
	}
	if refused < 1000 || refused > 19_000 {
		t.Errorf("%d of 20000 are refused: that tells little", refused)
	}
}

// matches says in the plainest way what an entry means.
func matches(e *chancerypb.Revocation, c revocation.Credential) bool {
	named := e.GetSubject() != "" && (e.GetSubject() == c.User || e.GetSubject() == c.Subject) ||
		e.GetToken() != "" && e.GetToken() == c.Token ||
		e.GetClient() != "" && e.GetClient() == c.Client ||
		e.GetTenant() != "" && e.GetTenant() == c.Tenant
	provider := len(e.GetProviders()) == 0
	for _, p := range e.GetProviders() {
		provider = provider || p == c.Provider
	}
	issued := c.IssuedAt.IsZero() || c.IssuedAt.UnixNano() <= e.GetBefore().AsTime().UnixNano()
	return named && provider && issued && now.UnixNano() <= e.GetExpires().AsTime().UnixNano()
}

func TestFindAllocatesNothing(t *testing.T) {
	for _, entries := range []int{0, 1000} {
		ix, c := bulk(t, entries), revocation.Credential{Provider: "staff", User: "user-5", Client: "till", IssuedAt: now}
		if n := testing.AllocsPerRun(100, func() { ix.Find(c, now) }); n != 0 {
			t.Errorf("%d entries: %v allocations", entries, n)
		}
	}
}

// bulk is an index of many subjects.
func bulk(t testing.TB, entries int) *revocation.Index {
	t.Helper()
	all := make([]*chancerypb.Revocation, entries)
	for i := range all {
		all[i] = revoke(fmt.Sprint(i), now, "staff")
		all[i].Whose = subject(fmt.Sprint("user-", i))
	}
	return index(t, all...)
}

func BenchmarkFind(b *testing.B) {
	for _, entries := range []int{0, 1, 1000, 100_000} {
		ix := bulk(b, entries)
		for name, c := range map[string]revocation.Credential{
			"miss": {Provider: "staff", User: "nobody", Token: "t-1", Client: "till", Tenant: "acme", IssuedAt: now},
			"hit":  {Provider: "staff", User: "user-0", Token: "t-1", Client: "till", Tenant: "acme", IssuedAt: now},
		} {
			b.Run(fmt.Sprint(name, "/", entries), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					ix.Find(c, now)
				}
			})
		}
	}
}

func BenchmarkNew(b *testing.B) {
	all := make([]*chancerypb.Revocation, 100_000)
	for i := range all {
		all[i] = revoke(fmt.Sprint(i), now, "staff")
		all[i].Whose = subject(fmt.Sprint("user-", i))
	}
	for b.Loop() {
		index(b, all...)
	}
}
