package credential_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/chancery-mesh/chancery/extauthz/credential"
)

func users(t testing.TB, list ...credential.User) *credential.Users {
	t.Helper()
	u, err := credential.NewUsers("staff", list)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func bcryptOf(t testing.TB, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), 10)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}

// someBcrypt is of a password that nobody knows.
var someBcrypt = "$2a$10$" + strings.Repeat("a", 53)

func argon2Of(t testing.TB, password string) string {
	t.Helper()
	hash, err := credential.HashPassword(password)
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

// pretend spares the time of hashing: no password is right. It counts what would
// have been computed, by cost, since it was asked last.
func pretend(u *credential.Users) func() map[string]int {
	var mu sync.Mutex
	counts := map[string]int{}
	u.OnHash(func(cost string, _ func() bool) bool {
		mu.Lock()
		defer mu.Unlock()
		counts[cost]++
		return false
	})
	return func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		defer func() { counts = map[string]int{} }()
		return counts
	}
}

var home, away = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")

func TestPasswords(t *testing.T) {
	t.Parallel()
	argon := argon2Of(t, "correct horse")
	u := users(t,
		credential.User{Name: "alice", Hash: argon, Groups: []string{"sales"}, Tenant: "acme"},
		credential.User{Name: "bob", Hash: bcryptOf(t, "battery staple")},
		credential.User{Name: "carol", Hash: argon, Disabled: true},
		credential.User{Name: "dora", Hash: strings.Replace(bcryptOf(t, "pass"), "$2a$", "$2y$", 1)},
		credential.User{Name: "ren\u00e9", Hash: argon2Of(t, "caf\u00e9")},
	)
	p := credential.NewPasswords()
	for name, row := range map[string]struct {
		user, password string
		want           credential.Reason
	}{
		"argon2id":                   {"alice", "correct horse", "accepted"},
		"bcrypt":                     {"bob", "battery staple", "accepted"},
		"bcrypt of htpasswd":         {"dora", "pass", "accepted"},
		"B04 in form C":              {"ren\u00e9", "caf\u00e9", "accepted"},
		"B04 user in form D":         {"rene\u0301", "caf\u00e9", credential.BadPassword},
		"B04 password in form D":     {"ren\u00e9", "cafe\u0301", credential.BadPassword},
		"B04 other case":             {"Alice", "correct horse", credential.BadPassword},
		"B04 password in other case": {"alice", "Correct horse", credential.BadPassword},
		"B04 full width":             {"\uff41lice", "correct horse", credential.BadPassword},
		"B04 right to left":          {"\u202ealice", "correct horse", credential.BadPassword},
		"B04 trailing space":         {"alice ", "correct horse", credential.BadPassword},
		"B04 space after password":   {"alice", "correct horse ", credential.BadPassword},
		"other's password":           {"bob", "correct horse", credential.BadPassword},
		"unknown":                    {"nobody", "correct horse", credential.BadPassword},
		"B09 disabled":               {"carol", "correct horse", credential.UserDisabled},
		"B09 disabled, guessed":      {"carol", "guess", credential.BadPassword},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 2 { // the second is remembered
				id, err := p.Verify(t.Context(), u, credential.Basic{User: row.user, Password: row.password}, home, now)
				if reason(err) != row.want || err == nil && (id.User != row.user || id.Kind != credential.KindBasic || id.Provider != "staff") {
					t.Errorf("%+v, %v, want %v", id, err, row.want)
				}
			}
		})
	}
}

// Attack row B01: bcrypt reads 72 bytes and no more.
func TestLongPasswords(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789", 8)
	u := users(t,
		credential.User{Name: "bcrypt", Hash: bcryptOf(t, long[:72])},
		credential.User{Name: "argon2id", Hash: argon2Of(t, long)},
	)
	p := credential.NewPasswords()
	for name, row := range map[string]struct {
		user, password string
		want           credential.Reason
	}{
		"B01 72 bytes":              {"bcrypt", long[:72], "accepted"},
		"B01 72 bytes and one":      {"bcrypt", long[:73], credential.BadPassword},
		"B01 72 bytes and junk":     {"bcrypt", long[:72] + strings.Repeat("x", 100), credential.BadPassword},
		"B01 argon2id reads all":    {"argon2id", long, "accepted"},
		"B01 argon2id, other's end": {"argon2id", long[:79] + "x", credential.BadPassword},
	} {
		_, err := p.Verify(t.Context(), u, credential.Basic{User: row.user, Password: row.password}, home, now)
		if reason(err) != row.want {
			t.Errorf("%s: %v, want %v", name, err, row.want)
		}
	}
}

// Attack row B02: what is remembered is of all that the verdict depends on, and
// nothing can be moved from one part to another.
func TestRememberedPasswords(t *testing.T) {
	t.Parallel()
	alice := credential.User{Name: "alice", Hash: argon2Of(t, "xsecret")}
	u := users(t, alice, credential.User{Name: "alicex", Hash: argon2Of(t, "other")})
	hashed := 0
	u.OnHash(func(_ string, compute func() bool) bool { hashed++; return compute() })
	p := credential.NewPasswords()
	verify := func(u *credential.Users, user, password string, now time.Time) (*credential.Identity, error) {
		return p.Verify(t.Context(), u, credential.Basic{User: user, Password: password}, home, now)
	}
	for range 5 {
		if _, err := verify(u, "alice", "xsecret", now); err != nil {
			t.Fatal(err)
		}
	}
	if hashed != 1 {
		t.Errorf("%d hashes of one password", hashed)
	}
	if _, err := verify(u, "alice", "xsecret", now.Add(time.Hour)); err != nil || hashed != 2 {
		t.Errorf("an hour later: %v, %d hashes", err, hashed)
	}
	if _, err := verify(u, "alicex", "secret", now); !errors.Is(err, credential.BadPassword) {
		t.Errorf("B02 a letter moved from password to user: %v", err)
	}
	long := strings.Repeat("x", 1000)
	if _, err := verify(u, "alice", "xsecret"+long, now); !errors.Is(err, credential.BadPassword) {
		t.Errorf("B02 long: %v", err)
	}
	changed := alice
	changed.Hash = argon2Of(t, "new secret")
	if _, err := verify(users(t, changed), "alice", "xsecret", now); !errors.Is(err, credential.BadPassword) {
		t.Errorf("B02 changed: %v", err)
	}
	disabled := alice
	disabled.Disabled = true
	if _, err := verify(users(t, disabled), "alice", "xsecret", now); !errors.Is(err, credential.UserDisabled) {
		t.Errorf("B09 disabled: %v", err)
	}
	if _, err := verify(users(t, credential.User{Name: "bob", Hash: alice.Hash}), "alice", "xsecret", now); !errors.Is(err, credential.BadPassword) {
		t.Errorf("removed: %v", err)
	}
	moved := alice
	moved.Tenant = "acme"
	if id, err := verify(users(t, moved), "alice", "xsecret", now); err != nil || id.Tenant != "acme" {
		t.Errorf("of another tenant now: %v, %v", id, err)
	}
	other, err := credential.NewUsers("partners", []credential.User{{Name: "alice", Hash: argon2Of(t, "other")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify(other, "alice", "xsecret", now); !errors.Is(err, credential.BadPassword) {
		t.Errorf("C17 of another document: %v", err)
	}
}

// Attack row B05: what a password costs does not tell whether there is such a
// user. Costs are counted: time would tell less, and differently each time.
func TestUnknownUsersCostTheSame(t *testing.T) {
	t.Parallel()
	cheap := strings.Replace(argon2Of(t, "a"), "m=19456,t=2", "m=7168,t=5", 1)
	u := users(t,
		credential.User{Name: "alice", Hash: argon2Of(t, "a")}, credential.User{Name: "bob", Hash: cheap},
		credential.User{Name: "carol", Hash: someBcrypt}, credential.User{Name: "dave", Hash: cheap, Disabled: true},
	)
	counts := pretend(u)
	p := credential.NewPasswords()
	guess := func(user string, i int) map[string]int {
		address := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		// Long ones are as expensive.
		password := strings.Repeat("x", 1+i%200)
		if _, err := p.Verify(t.Context(), u, credential.Basic{User: user, Password: password}, address, now); !errors.Is(err, credential.BadPassword) {
			t.Fatal(err)
		}
		return counts()
	}
	known := map[string]int{}
	for i, user := range []string{"alice", "bob", "carol", "dave"} {
		for cost, n := range guess(user, i) {
			known[cost] += n
		}
	}
	unknown := map[string]int{}
	for i := range 2000 {
		user := fmt.Sprintf("user-%d", i)
		first, again := guess(user, i), guess(user, i+2000)
		if len(first) != 1 || fmt.Sprint(first) != fmt.Sprint(again) {
			t.Fatalf("B05 %s costs %v, then %v", user, first, again)
		}
		for cost, n := range first {
			unknown[cost] += n
		}
	}
	for cost, n := range known {
		// Of 2000, with a standard deviation of 22 at most.
		if got, want := unknown[cost], n*2000/4; got < want-150 || got > want+150 {
			t.Errorf("B05 %s: %d of 2000 unknown users, and %d of 4 known ones", cost, got, n)
		}
	}
	if len(unknown) != len(known) || len(known) != 3 {
		t.Errorf("B05 known users cost %v, unknown ones %v", known, unknown)
	}
}

// Attack rows B06 and L02: wrong passwords end the guessing at that user from that
// address, and nothing else.
func TestThrottledPasswords(t *testing.T) {
	t.Parallel()
	u := users(t, credential.User{Name: "alice", Hash: argon2Of(t, "right")}, credential.User{Name: "bob", Hash: argon2Of(t, "right")})
	var hashed atomic.Int32
	u.OnHash(func(_ string, compute func() bool) bool { hashed.Add(1); return compute() })
	p := credential.NewPasswords()
	verify := func(user, password string, from netip.Addr, now time.Time) credential.Reason {
		_, err := p.Verify(t.Context(), u, credential.Basic{User: user, Password: password}, from, now)
		return reason(err)
	}
	if got := verify("alice", "right", home, now); got != "accepted" {
		t.Fatal(got)
	}
	for i := range 10 {
		if got := verify("alice", fmt.Sprint(i), away, now); got != credential.BadPassword {
			t.Fatalf("guess %d: %v", i, got)
		}
	}
	hashed.Store(0)
	for _, row := range []struct {
		name, user, password string
		from                 netip.Addr
		after                time.Duration
		want                 credential.Reason
	}{
		{"B06 one more", "alice", "10", away, 0, credential.Throttled},
		{"B06 the right one, remembered", "alice", "right", away, 0, credential.Throttled},
		{"L02 the user at home", "alice", "right", home, 0, "accepted"},
		{"L02 the user elsewhere", "alice", "right", netip.MustParseAddr("203.0.113.7"), 0, "accepted"},
		{"L02 another user from there", "bob", "right", away, 0, "accepted"},
		{"a little later", "alice", "right", away, 9 * time.Second, credential.Throttled},
		{"later", "alice", "right", away, 10 * time.Second, "accepted"},
		{"one guess more then", "alice", "11", away, 10 * time.Second, credential.BadPassword},
		{"and no second one", "alice", "12", away, 10 * time.Second, credential.Throttled},
	} {
		if got := verify(row.user, row.password, row.from, now.Add(row.after)); got != row.want {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
	if n := hashed.Load(); n != 2 { // bob's, and guess 11
		t.Errorf("%d hashes", n)
	}
}

// An address that guesses at many users is throttled as a whole; those who have
// been there before are not.
func TestThrottledAddresses(t *testing.T) {
	t.Parallel()
	u := users(t, credential.User{Name: "alice", Hash: argon2Of(t, "right")}, credential.User{Name: "bob", Hash: argon2Of(t, "right")})
	pretend(u)
	p := credential.NewPasswords()
	right := users(t, credential.User{Name: "alice", Hash: argon2Of(t, "right")})
	verify := func(u *credential.Users, user, password, from string) credential.Reason {
		_, err := p.Verify(t.Context(), u, credential.Basic{User: user, Password: password}, netip.MustParseAddr(from), now)
		return reason(err)
	}
	if got := verify(right, "alice", "right", "2001:db8::1"); got != "accepted" {
		t.Fatal(got)
	}
	for i := range 100 {
		// L01: all of a /64 is one.
		if got := verify(u, fmt.Sprintf("user-%d", i), "guess", fmt.Sprintf("2001:db8::%x", i)); got != credential.BadPassword {
			t.Fatalf("guess %d: %v", i, got)
		}
	}
	for name, row := range map[string]struct {
		user, from string
		want       credential.Reason
	}{
		"another user":            {"user-200", "2001:db8::7", credential.Throttled},
		"a user that exists":      {"bob", "2001:db8::7", credential.Throttled},
		"one who was here":        {"alice", "2001:db8::2", credential.BadPassword},
		"from elsewhere":          {"bob", "2001:db8:0:1::7", credential.BadPassword},
		"IPv4":                    {"bob", "192.0.2.1", credential.BadPassword},
		"IPv4 next to it, mapped": {"bob", "::ffff:192.0.2.2", credential.BadPassword},
	} {
		if got := verify(u, row.user, "guess", row.from); got != row.want {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
	if got := verify(right, "alice", "right", "2001:db8::3"); got != "accepted" {
		t.Errorf("with the right password, remembered: %v", got)
	}
}

// Guesses at one user from many addresses are throttled as a whole, and keep the
// user out nowhere where they have been.
func TestThrottledUsers(t *testing.T) {
	t.Parallel()
	u := users(t, credential.User{Name: "alice", Hash: argon2Of(t, "right")}, credential.User{Name: "bob", Hash: argon2Of(t, "right")})
	p := credential.NewPasswords()
	verify := func(user, password, from string, after time.Duration) credential.Reason {
		_, err := p.Verify(t.Context(), u, credential.Basic{User: user, Password: password}, netip.MustParseAddr(from), now.Add(after))
		return reason(err)
	}
	if got := verify("alice", "right", "192.0.2.1", 0); got != "accepted" {
		t.Fatal(got)
	}
	pretend(u)
	for i := range 100 {
		if got := verify("alice", "guess", fmt.Sprintf("198.51.100.%d", i), 0); got != credential.BadPassword {
			t.Fatalf("guess %d: %v", i, got)
		}
	}
	for _, row := range []struct {
		name, user, from string
		after            time.Duration
		want             credential.Reason
	}{
		{"one more", "alice", "203.0.113.1", 0, credential.Throttled},
		{"where alice has been", "alice", "192.0.2.1", 0, credential.BadPassword},
		{"another user", "bob", "203.0.113.1", 0, credential.BadPassword},
		{"a little later", "alice", "203.0.113.2", 29 * time.Second, credential.Throttled},
		{"later", "alice", "203.0.113.3", 30 * time.Second, credential.BadPassword},
		{"and no second one", "alice", "203.0.113.4", 30 * time.Second, credential.Throttled},
	} {
		if got := verify(row.user, "guess", row.from, row.after); got != row.want {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
}

// Attack row B06: hashes at once are bounded, and who finds the queue full is told
// that nobody decided, which is no guess.
func TestHashesAtOnce(t *testing.T) {
	t.Parallel()
	u := users(t, credential.User{Name: "alice", Hash: argon2Of(t, "right")})
	p := credential.NewPasswords()
	slots, queue := p.Attempts()
	var running, most atomic.Int32
	release := make(chan struct{})
	u.OnHash(func(string, func() bool) bool {
		n := running.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-release
		running.Add(-1)
		return false
	})
	verify := func(ctx context.Context, i int) credential.Reason {
		address := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		_, err := p.Verify(ctx, u, credential.Basic{User: "alice", Password: fmt.Sprint(rand.Int64())}, address, now)
		return reason(err)
	}
	const clients = 1000
	results := make(chan credential.Reason, clients)
	for i := range clients {
		go func() { results <- verify(t.Context(), i) }()
	}
	count := map[credential.Reason]int{}
	for range clients - queue { // the others wait
		count[<-results]++
	}
	const busy = 5000
	for range 100 {
		count[verify(t.Context(), busy)]++
	}
	if count[credential.Busy] != clients-queue+100 {
		t.Errorf("B06 while the queue is full: %v", count)
	}
	close(release)
	for range queue {
		count[<-results]++
	}
	if int(most.Load()) > slots || count[credential.BadPassword] != queue {
		t.Errorf("B06 %d hashes at once in %d slots, %v", most.Load(), slots, count)
	}
	for i := range 10 {
		if got := verify(t.Context(), busy); got != credential.BadPassword {
			t.Errorf("B06 guess %d of who was turned away: %v", i, got)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if got := verify(cancelled, 6000); got != credential.Busy && got != credential.BadPassword {
		t.Errorf("cancelled: %v", got)
	}
}

// A panic decides nothing, and is not the end of the process.
func TestPanickingHash(t *testing.T) {
	t.Parallel()
	u := users(t, credential.User{Name: "alice", Hash: argon2Of(t, "right")})
	u.OnHash(func(string, func() bool) bool { panic("broken") })
	p := credential.NewPasswords()
	slots, queue := p.Attempts()
	for i := range slots + queue + 1 { // none of which it keeps
		_, err := p.Verify(t.Context(), u, credential.Basic{User: "alice", Password: fmt.Sprint(i)}, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), now)
		if !errors.Is(err, credential.Busy) || !strings.Contains(err.Error(), "panic: broken") {
			t.Fatalf("%d: %v", i, err)
		}
	}
}

func TestSamePasswordAtOnce(t *testing.T) {
	t.Parallel()
	u := users(t, credential.User{Name: "alice", Hash: argon2Of(t, "right")})
	var hashed atomic.Int32
	u.OnHash(func(_ string, compute func() bool) bool { hashed.Add(1); return compute() })
	p := credential.NewPasswords()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := p.Verify(t.Context(), u, credential.Basic{User: "alice", Password: "right"}, home, now); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := hashed.Load(); n != 1 {
		t.Errorf("%d hashes", n)
	}
}

func TestNewUsersRefuses(t *testing.T) {
	t.Parallel()
	argon, bcrypted := argon2Of(t, "secret"), someBcrypt
	for name, user := range map[string]credential.User{
		"no name":                {Name: "", Hash: argon},
		"name with a colon":      {Name: "a:b", Hash: argon},
		"name with a line":       {Name: "a\nb", Hash: argon},
		"B04 name in form D":     {Name: "rene\u0301", Hash: argon},
		"B04 space after name":   {Name: "alice ", Hash: argon},
		"no hash":                {Name: "alice"},
		"the password":           {Name: "alice", Hash: "secret"},
		"another kind":           {Name: "alice", Hash: strings.Replace(argon, "argon2id", "argon2i", 1)},
		"MD5":                    {Name: "alice", Hash: "$apr1$x$y"},
		"version":                {Name: "alice", Hash: strings.Replace(argon, "v=19", "v=16", 1)},
		"memory bomb":            {Name: "alice", Hash: strings.Replace(argon, "m=19456", "m=4194304", 1)},
		"memory just too much":   {Name: "alice", Hash: strings.Replace(argon, "m=19456", "m=65537", 1)},
		"memory overflows":       {Name: "alice", Hash: strings.Replace(argon, "m=19456", "m=4294967296", 1)},
		"time bomb":              {Name: "alice", Hash: strings.Replace(argon, "t=2", "t=11", 1)},
		"time bomb, wrapped":     {Name: "alice", Hash: strings.Replace(argon, "t=2", "t=4294967295", 1)},
		"no passes":              {Name: "alice", Hash: strings.Replace(argon, "t=2", "t=0", 1)},
		"too little memory":      {Name: "alice", Hash: strings.Replace(argon, "m=19456,t=2", "m=1024,t=100", 1)},
		"too little work":        {Name: "alice", Hash: strings.Replace(argon, "t=2", "t=1", 1)},
		"no threads":             {Name: "alice", Hash: strings.Replace(argon, "p=1", "p=0", 1)},
		"many threads":           {Name: "alice", Hash: strings.Replace(argon, "p=1", "p=255", 1)},
		"parameters with zeroes": {Name: "alice", Hash: strings.Replace(argon, "t=2", "t=02", 1)},
		"parameters and more":    {Name: "alice", Hash: strings.Replace(argon, "p=1", "p=1,x=1", 1)},
		"line feed after":        {Name: "alice", Hash: argon + "\n"},
		"short sum":              {Name: "alice", Hash: argon[:len(argon)-32]},
		"no sum":                 {Name: "alice", Hash: argon[:strings.LastIndexByte(argon, '$')+1]},
		"no salt":                {Name: "alice", Hash: "$argon2id$v=19$m=19456,t=2,p=1$$" + argon[strings.LastIndexByte(argon, '$')+1:]},
		"long sum":               {Name: "alice", Hash: argon + strings.Repeat("AAAA", 64)},
		"bcrypt bomb":            {Name: "alice", Hash: strings.Replace(bcrypted, "$10$", "$31$", 1)},
		"bcrypt too expensive":   {Name: "alice", Hash: strings.Replace(bcrypted, "$10$", "$14$", 1)},
		"bcrypt too cheap":       {Name: "alice", Hash: strings.Replace(bcrypted, "$10$", "$04$", 1)},
		"bcrypt of PHP's":        {Name: "alice", Hash: strings.Replace(bcrypted, "$2a$", "$2x$", 1)},
		"bcrypt cut":             {Name: "alice", Hash: bcrypted[:59]},
		"bcrypt with more":       {Name: "alice", Hash: bcrypted + "a"},
		"bcrypt, other letters":  {Name: "alice", Hash: bcrypted[:59] + "!"},
	} {
		_, err := credential.NewUsers("staff", []credential.User{user})
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := credential.NewUsers("staff", nil); err == nil {
			t.Error("no users: accepted")
		}
	}
	twice := credential.User{Name: "alice", Hash: argon}
	if _, err := credential.NewUsers("staff", []credential.User{twice, twice}); err == nil {
		t.Error("stands twice: accepted")
	}
	// Errors are read by more people than documents are.
	if _, err := credential.NewUsers("staff", []credential.User{{Name: "alice", Hash: "hunter2"}}); strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
}

func TestHashPassword(t *testing.T) {
	t.Parallel()
	if a, b := argon2Of(t, "secret"), argon2Of(t, "secret"); a == b || !strings.HasPrefix(a, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("%s and %s", a, b)
	}
	for _, password := range []string{"", "a\x00", "a\n", "\xff", "cafe\u0301", strings.Repeat("a", 1025)} {
		if hash, err := credential.HashPassword(password); err == nil {
			t.Errorf("%.20q: %s", password, hash)
		}
	}
}
