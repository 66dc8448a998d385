package controlplane_test

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/extauthz/revocation"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/internal/xdstest"
	"github.com/chancery-mesh/chancery/mesh"
)

var revocationsType = xds.TypeURL(&chancerypb.Revocations{})

const staffYAML = `
kind: IdentityProvider
name: staff
issuer: https://idp.shop.example/staff
audiences: [shop]
`

// shopWithStaff is a mesh with an identity provider, which is not there.
func shopWithStaff() map[string]string {
	docs := shop()
	docs["staff"] = staffYAML
	return docs
}

// pdp is an agent that decides by the revocations it is sent, and reports them.
type pdp struct {
	*xdstest.Client
	r      *rig
	client chancerypb.ControlPlaneClient
	held   map[string]*chancerypb.Revocations
}

// pdp starts an agent that has what is revoked when it returns.
func (r *rig) pdp(id identity.ID) *pdp {
	r.t.Helper()
	r.dial(id)
	conn := r.dialWith(r.svid(id), grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(64<<20)))
	p := &pdp{
		Client: r.stream(id.String(), xdstest.Open(r.t, conn)), r: r,
		client: chancerypb.NewControlPlaneClient(conn), held: map[string]*chancerypb.Revocations{},
	}
	p.Subscribe(revocationsType, "*")
	p.take()
	return p
}

// take takes what it is sent next.
func (p *pdp) take() {
	p.r.t.Helper()
	for resp := p.Next(); ; resp = p.Next() {
		p.ACK(resp)
		if resp.GetTypeUrl() != revocationsType {
			continue
		}
		for _, r := range resp.GetResources() {
			m := &chancerypb.Revocations{}
			if err := xds.FromDelta(r).Decode(m); err != nil {
				p.r.t.Fatal(err)
			}
			p.held[r.GetName()] = m
		}
		break
	}
	if _, err := p.client.Report(p.r.t.Context(), &chancerypb.ReportRequest{RevocationsSequence: p.sequence()}, grpc.WaitForReady(true)); err != nil {
		p.r.t.Fatal(err)
	}
}

// sequence is that of the newest that it has.
func (p *pdp) sequence() (newest uint64) {
	for _, m := range p.held {
		newest = max(newest, m.GetSequence())
	}
	return newest
}

func (p *pdp) index() *revocation.Index {
	p.r.t.Helper()
	var all []*chancerypb.Revocations
	for _, m := range p.held {
		all = append(all, m)
	}
	ix, err := revocation.New(all...)
	if err != nil {
		p.r.t.Fatal(err)
	}
	return ix
}

// refuses tells of a token that was issued a minute ago.
func (p *pdp) refuses(provider, subject string) bool {
	p.r.t.Helper()
	_, revoked := p.index().Find(revocation.Credential{Provider: provider, User: subject, IssuedAt: time.Now().Add(-time.Minute)}, time.Now())
	return revoked
}

// expect fails when tokens of these subjects of staff are not those refused.
func (p *pdp) expect(what string, refused ...string) {
	p.r.t.Helper()
	for _, subject := range []string{"alice", "bob", "carol"} {
		if got, want := p.refuses("staff", subject), slices.Contains(refused, subject); got != want {
			p.r.t.Errorf("%s: %s is refused: %v, want %v", what, subject, got, want)
		}
	}
}

// of is a revocation of a subject's credentials of staff.
func of(subject string) controlplane.Revocation {
	return controlplane.Revocation{
		Target: controlplane.Target{Subject: subject}, CredentialScope: controlplane.CredentialScope{Provider: "staff"},
	}
}

// revokes revokes, while each PDP takes it.
func (r *rig) revokes(q controlplane.Revocation, by ...*pdp) controlplane.RevocationStatus {
	r.t.Helper()
	return r.while(by, func() (controlplane.RevocationStatus, error) { return r.admin.Revoke(r.t.Context(), q) })
}

func (r *rig) while(by []*pdp, do func() (controlplane.RevocationStatus, error)) controlplane.RevocationStatus {
	r.t.Helper()
	type answer struct {
		status controlplane.RevocationStatus
		err    error
	}
	answered := make(chan answer, 1)
	defer controlplane.AwaitProxies(r.server, time.Minute)() // no client waits as long
	begin := time.Now()
	go func() { status, err := do(); answered <- answer{status, err} }()
	for _, p := range by {
		p.take()
	}
	a := <-answered
	if a.err != nil {
		r.t.Fatal(a.err)
	}
	r.t.Logf("it took %v", time.Since(begin))
	if a.status.Proxies != len(by) || a.status.Acknowledged != len(by) || len(a.status.Waiting) != 0 {
		r.t.Errorf("proxies: %+v, want all %d to have taken it", a.status, len(by))
	}
	return a.status
}

func TestRevokeCredentials(t *testing.T) {
	t.Parallel()
	r := start(t, shopWithStaff())
	edge, side := r.pdp(gateway), r.pdp(orders)
	edge.expect("before")
	begin := time.Now()
	q := of("alice")
	q.Reason = "laptop was stolen"
	got := r.revokes(q, edge, side)
	for _, p := range []*pdp{edge, side} {
		p.expect("revoked", "alice")
		if p.refuses("partners", "alice") {
			t.Error("a namesake of another provider is refused")
		}
	}
	entry := got.Credentials
	if entry.Issuer != "https://idp.shop.example/staff" || entry.Subject != "alice" || entry.By == "" || entry.Reason != q.Reason {
		t.Errorf("revoked: %+v", entry)
	}
	// What the provider issues now may say, by its clock, that it does so in half
	// a minute.
	if entry.Before.Before(begin.Add(30*time.Second)) || entry.Before.After(time.Now().Add(30*time.Second)) {
		t.Errorf("before is %v, want now and the clock skew", entry.Before)
	}
	if life := entry.Expires.Sub(entry.Before); life < 24*time.Hour+90*time.Second || life > 25*time.Hour {
		t.Errorf("it lasts %v, want as long as a token and a Passport may live", life)
	}
	list, err := r.admin.Revocations(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != entry.ID {
		t.Errorf("list: %+v, %v", list, err)
	}
	if r.metric("chancery_credential_revocations") != 1 {
		t.Error("metrics do not show it")
	}

	r.revokes(of("bob"), edge, side)
	edge.expect("another", "alice", "bob")
	undone := r.while([]*pdp{edge, side}, func() (controlplane.RevocationStatus, error) {
		return r.admin.UndoRevocation(t.Context(), entry.ID)
	})
	if undone.Credentials.ID != entry.ID {
		t.Errorf("undone: %+v", undone.Credentials)
	}
	edge.expect("undone", "bob")
	side.expect("undone", "bob")
	if _, err := r.admin.UndoRevocation(t.Context(), entry.ID); statusOf(err) != http.StatusNotFound {
		t.Errorf("undone twice: %v", err)
	}
	audit, err := os.ReadFile(filepath.Join(r.state, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`"event":"credentials revoked","subject":"subject alice of https://idp.shop.example/staff","by":"uid `,
		`"reason":"laptop was stolen"`,
		`"event":"revocation of credentials undone","subject":"subject alice of https://idp.shop.example/staff"`,
	} {
		if !strings.Contains(string(audit), line) {
			t.Errorf("audit log has no %s", line)
		}
	}
}

func statusOf(err error) int {
	if answer, ok := errors.AsType[*controlplane.AnswerError](err); ok {
		return answer.Status
	}
	return 0
}

// One that is away is named, too, and has it as soon as it is back; one that is
// sent it and does not take it is waited for.
func TestRevocationTellsWhoHasNotTakenIt(t *testing.T) {
	t.Parallel()
	r := start(t, shopWithStaff())
	r.stream("gateway/public", r.open(gateway))
	r.svid(orders)
	got, err := r.admin.Revoke(t.Context(), of("alice"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Proxies != 1 || got.Acknowledged != 0 || len(got.Waiting) != 1 || got.Waiting[0].Name != "gateway/public" ||
		!strings.Contains(got.Waiting[0].Reason, "has revocations 0 and not yet ") {
		t.Errorf("waiting: %+v", got)
	}
	if len(got.Away) != 1 || got.Away[0].Name != "service/orders" || !got.Away[0].Away {
		t.Errorf("away: %+v", got.Away)
	}
	r.pdp(orders).expect("back", "alice")
	// Nobody says that it has what is yet to come.
	r.report(gateway, &chancerypb.ReportRequest{RevocationsSequence: 1 << 62})
	again, err := r.admin.Revoke(t.Context(), of("bob"))
	if err != nil || again.Acknowledged != 0 {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestRevocationSurvivesARestart(t *testing.T) {
	t.Parallel()
	r := start(t, shopWithStaff())
	edge := r.pdp(gateway)
	r.revokes(of("alice"), edge)
	undone := r.revokes(of("carol"), edge)
	r.while([]*pdp{edge}, func() (controlplane.RevocationStatus, error) {
		return r.admin.UndoRevocation(t.Context(), undone.Credentials.ID)
	})
	before := edge.sequence()
	r.stop()

	r.start()
	edge = r.pdp(gateway)
	edge.expect("after a restart", "alice")
	if edge.sequence() != before {
		t.Errorf("sequence %d, was %d", edge.sequence(), before)
	}
	r.revokes(of("bob"), edge)
	edge.expect("after a restart", "alice", "bob")
	if edge.sequence() <= before {
		t.Errorf("sequence %d, was %d", edge.sequence(), before)
	}
}

// A full disk keeps nobody in, and the operator hears of it; with the disk back
// it is saved.
func TestRevocationOfCredentialsWithoutADisk(t *testing.T) {
	t.Parallel()
	r := start(t, shopWithStaff())
	edge := r.pdp(gateway)
	dir, away := r.state+"/revocations", r.state+"/revocations-away"
	rename := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	rename(dir, away)
	got := r.revokes(of("alice"), edge)
	edge.expect("without a disk", "alice")
	if !strings.Contains(got.Unsaved, "not on disk") {
		t.Errorf("unsaved: %q", got.Unsaved)
	}
	before := edge.sequence()
	rename(away, dir)
	controlplane.Tidy(r.server)
	r.stop()
	r.start()
	r.pdp(gateway).expect("with the disk back", "alice")

	// A change that is lost does not keep the next one from being news.
	edge = r.pdp(gateway)
	rename(dir, away)
	r.revokes(of("bob"), edge)
	r.stop()
	rename(away, dir)
	r.start()
	edge = r.pdp(gateway)
	edge.expect("lost", "alice")
	r.revokes(of("carol"), edge)
	if edge.sequence() <= before {
		t.Errorf("sequence %d, was %d", edge.sequence(), before)
	}
}

// What was revoked when the process is killed stays so.
func TestRevocationsOfAProcessThatIsKilled(t *testing.T) {
	t.Parallel()
	if path := os.Getenv("CHANCERY_TEST_REVOCATIONS"); path != "" {
		revokeForEver(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "revocations")
	var revoked []string
	var sequence uint64
	for after := range 8 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRevocationsOfAProcessThatIsKilled$")
		cmd.Env = append(os.Environ(), "CHANCERY_TEST_REVOCATIONS="+path)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if id, ok := strings.CutPrefix(lines.Text(), "revoked "); ok {
				revoked = append(revoked, id)
				time.AfterFunc(time.Duration(after)*3*time.Millisecond, func() { _ = cmd.Process.Kill() })
			}
		}
		_ = cmd.Wait()
		rs, err := controlplane.OpenRevocations(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range revoked {
			if !rs.Has(id) {
				t.Errorf("%s is forgotten", id)
			}
		}
		if rs.Sequence() <= sequence {
			t.Errorf("sequence %d after %d", rs.Sequence(), sequence)
		}
		sequence = rs.Sequence()
	}
	if len(revoked) < 8 {
		t.Errorf("only %d were revoked", len(revoked))
	}
}

// revokeForEver says what is revoked, as soon as that is so.
func revokeForEver(t *testing.T, path string) {
	t.Helper()
	rs, err := controlplane.OpenRevocations(path)
	if err != nil {
		t.Fatal(err)
	}
	for {
		id, err := rs.Add(rand.Text())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("revoked", id)
	}
}

// A state that cannot be read is not passed over.
func TestDamagedRevocations(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.stop()
	if err := os.WriteFile(filepath.Join(r.state, "revocations", "0a.json"), []byte(`{"sequence":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := controlplane.New(r.config()); err == nil || !strings.Contains(err.Error(), "revocations/0a.json") {
		t.Errorf("it starts: %v", err)
	}
}

// A revocation is of an issuer, whatever its documents are called.
func TestRevocationFollowsItsIssuer(t *testing.T) {
	t.Parallel()
	docs := shopWithStaff()
	docs["mobile"] = strings.Replace(staffYAML, "name: staff", "name: mobile", 1)
	r := start(t, docs)
	edge := r.pdp(gateway)
	r.revokes(of("alice"), edge)
	if !edge.refuses("mobile", "alice") {
		t.Error("the other document of the issuer lets her in")
	}
	r.write("staff", strings.Replace(staffYAML, "name: staff", "name: employees", 1))
	edge.take()
	for _, provider := range []string{"staff", "mobile", "employees"} {
		if !edge.refuses(provider, "alice") {
			t.Errorf("%s lets her in", provider)
		}
	}
	q := of("bob")
	q.Provider, q.Issuer = "", "https://idp.shop.example/staff"
	r.revokes(q, edge)
	if !edge.refuses("employees", "bob") {
		t.Error("by its issuer, bob is let in")
	}
	q.Issuer, q.Subject = "", "carol"
	r.revokes(q, edge)
	for _, provider := range []string{"staff", ""} {
		if !edge.refuses(provider, "carol") {
			t.Errorf("%q lets carol in", provider)
		}
	}
}

func TestWhatCannotBeRevoked(t *testing.T) {
	t.Parallel()
	r := start(t, shopWithStaff())
	r.dial(gateway) // documents are served
	with := func(change func(*controlplane.Revocation)) controlplane.Revocation {
		q := of("alice")
		change(&q)
		return q
	}
	for name, test := range map[string]struct {
		revocation controlplane.Revocation
		status     int
		says       string
	}{
		"two things":          {with(func(q *controlplane.Revocation) { q.Client = "till" }), http.StatusBadRequest, "revoke one of"},
		"a workload as well":  {with(func(q *controlplane.Revocation) { q.Service = "orders" }), http.StatusBadRequest, "revoke one of"},
		"nobody":              {with(func(q *controlplane.Revocation) { q.Subject = "" }), http.StatusBadRequest, "revoke one of"},
		"a workload's before": {controlplane.Revocation{Service: "orders", CredentialScope: controlplane.CredentialScope{For: "1h"}}, http.StatusBadRequest, "leave out"},
		"a token's before": {with(func(q *controlplane.Revocation) {
			q.Subject, q.JTI, q.Before = "", "7f3c", time.Now()
		}), http.StatusBadRequest, "leave out before"},
		"a line break":        {with(func(q *controlplane.Revocation) { q.Subject = "alice\n" }), http.StatusBadRequest, "nothing that a credential can say"},
		"no provider of ours": {with(func(q *controlplane.Revocation) { q.Provider = "stuff" }), http.StatusNotFound, "there are: staff (https://idp.shop.example/staff)"},
		"no issuer of ours": {with(func(q *controlplane.Revocation) {
			q.Provider, q.Issuer = "", "https://idp.shop.example/staff/"
		}), http.StatusNotFound, "there is no identity provider"},
		"no duration":       {with(func(q *controlplane.Revocation) { q.For = "a day" }), http.StatusBadRequest, "write a duration"},
		"no time":           {with(func(q *controlplane.Revocation) { q.For = "-1h" }), http.StatusBadRequest, "write a duration"},
		"for ever":          {with(func(q *controlplane.Revocation) { q.For = "1000000h" }), http.StatusBadRequest, "write a duration"},
		"what has ended":    {with(func(q *controlplane.Revocation) { q.Before = time.Now().Add(-48 * time.Hour) }), http.StatusBadRequest, "can still be good"},
		"until for ever":    {with(func(q *controlplane.Revocation) { q.Before = time.Now().AddDate(100, 0, 0) }), http.StatusBadRequest, "ten years"},
		"too long a reason": {with(func(q *controlplane.Revocation) { q.Reason = strings.Repeat("a", 257) }), http.StatusBadRequest, "at most 256"},
	} {
		_, err := r.admin.Revoke(t.Context(), test.revocation)
		if statusOf(err) != test.status || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want status %d that says %q", name, err, test.status, test.says)
		}
	}
	if list, err := r.admin.Revocations(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("revoked: %+v, %v", list, err)
	}
}

// Who revokes the same again widens it.
func TestRevokedAgain(t *testing.T) {
	t.Parallel()
	r := start(t, shopWithStaff())
	r.dial(gateway) // documents are served
	revoke := func(change func(*controlplane.Revocation)) controlplane.CredentialRevocation {
		t.Helper()
		q := of("alice")
		change(&q)
		got, err := r.admin.Revoke(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return *got.Credentials
	}
	ahead := time.Now().Add(time.Hour).UTC()
	first := revoke(func(q *controlplane.Revocation) { q.Before, q.For = ahead, "10m" })
	if !first.Before.Equal(ahead) || !first.Fixed || time.Until(first.Expires) > 10*time.Minute {
		t.Errorf("first: %+v", first)
	}
	second := revoke(func(*controlplane.Revocation) {})
	if second.ID != first.ID || !second.Before.Equal(ahead) || second.Fixed || time.Until(second.Expires) < 24*time.Hour {
		t.Errorf("second: %+v", second)
	}
	third := revoke(func(q *controlplane.Revocation) { q.For = "1h" })
	if !third.Expires.Equal(second.Expires) || third.Fixed {
		t.Errorf("third: %+v", third)
	}
	if list, err := r.admin.Revocations(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("revoked: %+v, %v", list, err)
	}
}

// A revocation is forgotten when nothing can match it any more, by a clock that
// can be believed.
func TestRevocationsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "revocations")
		rs, err := controlplane.OpenRevocations(path)
		if err != nil {
			t.Fatal(err)
		}
		staff := &mesh.IdentityProvider{
			Name: "staff", Issuer: "https://idp.shop.example/staff", ClockSkew: time.Minute, MaxTokenLifetime: 24 * time.Hour,
		}
		rs.Use([]*mesh.IdentityProvider{staff}, time.Minute)
		id, err := rs.Add("alice")
		if err != nil {
			t.Fatal(err)
		}
		// A token that was issued now by a clock that is a minute ahead, lives a day
		// and is taken a minute longer; its last Passport lives a minute; and another
		// to be sure.
		life := 24*time.Hour + 4*time.Minute
		if got := time.Until(rs.Expires(id)); got != life {
			t.Errorf("it lasts %v, want %v", got, life)
		}
		longer := *staff
		longer.MaxTokenLifetime, life = 48*time.Hour, life+24*time.Hour
		rs.Use([]*mesh.IdentityProvider{&longer}, time.Minute)
		rs.Use([]*mesh.IdentityProvider{staff}, time.Minute)
		if got := time.Until(rs.Expires(id)); got != life {
			t.Errorf("it lasts %v, want %v", got, life)
		}
		before := rs.Sequence()
		time.Sleep(life)
		rs.Tidy()
		if !rs.Has(id) || rs.Sequence() != before {
			t.Error("it ended early")
		}
		time.Sleep(time.Nanosecond)
		rs.Tidy()
		if rs.Has(id) || rs.Sequence() <= before {
			t.Error("it did not end")
		}

		if id, err = rs.Add("bob"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(49 * time.Hour)
		again, err := controlplane.OpenRevocations(path)
		if err != nil {
			t.Fatal(err)
		}
		if again.Tidy(); !again.Has(id) {
			t.Error("a process that just started forgets")
		}
		time.Sleep(time.Hour)
		if again.Tidy(); again.Has(id) {
			t.Error("it did not end after a restart")
		}
	})
}

// manyRevocations writes the state of a control plane that revoked a lot.
func manyRevocations(t testing.TB, state string, n int) {
	t.Helper()
	shards := map[string]map[string]any{}
	for i := range n {
		id := fmt.Sprintf("%02x%014x", i%256, i)
		if shards[id[:2]] == nil {
			shards[id[:2]] = map[string]any{}
		}
		shards[id[:2]][id] = controlplane.CredentialRevocation{
			ID: id, Target: controlplane.Target{Subject: fmt.Sprint("user-", i)}, Issuer: "https://idp.shop.example/staff",
			Providers: []string{"staff"}, Before: time.Now(), Expires: time.Now().Add(time.Hour), Fixed: true, Revoked: time.Now(),
		}
	}
	for name, entries := range shards {
		data, err := json.Marshal(map[string]any{"sequence": n, "entries": entries})
		if err == nil {
			err = os.WriteFile(filepath.Join(state, "revocations", name+".json"), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// The bound is said to be one; up to it a revocation is soon everywhere, and sent
// with few of the others.
func TestManyRevocations(t *testing.T) {
	t.Parallel()
	r := start(t, shopWithStaff())
	r.stop()
	manyRevocations(t, r.state, 100_000-1)
	r.start()
	edge := r.pdp(gateway)
	if n := edge.index().Len(); n != 100_000-1 {
		t.Errorf("%d revocations", n)
	}
	got := r.revokes(of("alice"), edge)
	edge.expect("one more", "alice")
	if n := len(edge.held[got.Credentials.ID[:2]].GetEntries()); n < 2 || n > 1000 {
		t.Errorf("it came along with %d", n)
	}
	_, err := r.admin.Revoke(t.Context(), of("bob"))
	if statusOf(err) != http.StatusConflict || !strings.Contains(err.Error(), "there are 100000 revocations, which is the most") {
		t.Errorf("one too many: %v", err)
	}
	if _, err = r.admin.Revoke(t.Context(), of("alice")); err != nil {
		t.Errorf("one that is there: %v", err)
	}
}
