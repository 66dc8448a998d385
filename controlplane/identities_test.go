package controlplane_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xdstest"
)

func TestProxiesShowWhatIsWrongWithIdentities(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.stream("service/orders", r.open(orders))
	svid := r.svid(orders)
	now := time.Now()
	at := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(d)) }
	for name, test := range map[string]struct {
		report *chancerypb.ReportRequest
		want   []string
	}{
		"nothing": {
			&chancerypb.ReportRequest{SvidExpires: at(time.Hour), SvidRenews: at(time.Minute), Now: at(0)}, nil,
		},
		"what the agent says": {
			&chancerypb.ReportRequest{Problems: []string{"the disk is full"}}, []string{"the disk is full"},
		},
		"renewal is late": {
			&chancerypb.ReportRequest{SvidExpires: at(time.Hour), SvidRenews: at(-2 * time.Hour)}, []string{"should have been renewed"},
		},
		"the certificate has ended": {
			&chancerypb.ReportRequest{SvidExpires: at(-time.Second), SvidRenews: at(-time.Hour)}, []string{"ended at"},
		},
		"another authority": {
			&chancerypb.ReportRequest{SvidAuthority: "abcd", SvidExpires: at(time.Hour)}, []string{"which is not trusted"},
		},
		"the clock is ahead":  {&chancerypb.ReportRequest{Now: at(time.Minute)}, []string{"s ahead: "}},
		"the clock is behind": {&chancerypb.ReportRequest{Now: at(-time.Minute)}, []string{"s behind: "}},
	} {
		test.report.SvidSerial = svid.Serial()
		if test.report.GetSvidAuthority() == "" {
			test.report.SvidAuthority = svid.Authority()
		}
		test.report.TrustSequence = controlplane.Authority(r.server).Trust().GetSequence()
		r.report(orders, test.report)
		p := r.proxies()[0]
		if len(p.Problems) != len(test.want) {
			t.Errorf("%s: problems are %q, want %q", name, p.Problems, test.want)
			continue
		}
		for i, want := range test.want {
			if got := p.Problems[i]; !strings.Contains(got, want) {
				t.Errorf("%s: problem is %q, want %q", name, got, want)
			}
		}
		if p.Certificate.Serial != svid.Serial() {
			t.Errorf("%s: certificate: %+v", name, p.Certificate)
		}
	}
}

func TestAuthorityCommands(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.stream("service/orders", r.open(orders))
	states := func(a controlplane.AuthorityStatus, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		var states []string
		for _, i := range a.Issuers {
			states = append(states, string(i.State))
		}
		return strings.Join(states, " ")
	}
	before, err := r.admin.Authority(t.Context())
	if got := states(before, err); got != "active" || before.TrustDomain != "shop.example" || len(before.Roots) != 1 {
		t.Errorf("authority: %s %+v", got, before)
	}
	prepared, err := r.admin.PrepareAuthority(t.Context(), true)
	if got := states(prepared, err); got != "active prepared" || len(prepared.Roots) != 2 || prepared.Sequence <= before.Sequence {
		t.Errorf("after prepare: %s %+v", got, prepared)
	}
	next := prepared.Issuers[1].ID

	_, err = r.admin.StepAuthority(t.Context(), controlplane.StepActivate, next, false)
	waiting, ok := errors.AsType[*controlplane.WaitingError](err)
	if !ok || waiting.Step.Authority != next || len(waiting.Step.Waiting) != 1 || waiting.Step.Waiting[0].Name != "service/orders" {
		t.Fatalf("activate: %v", err)
	}
	r.report(orders, &chancerypb.ReportRequest{TrustSequence: prepared.Sequence})
	if got := states(r.admin.StepAuthority(t.Context(), controlplane.StepActivate, "", false)); got != "old active" {
		t.Errorf("after activate: %s", got)
	}
	if got := states(r.admin.StepAuthority(t.Context(), controlplane.StepTaint, "", true)); got != "tainted active" {
		t.Errorf("after taint: %s", got)
	}
	if got := states(r.admin.StepAuthority(t.Context(), controlplane.StepRevoke, "", true)); got != "revoked active" {
		t.Errorf("after revoke: %s", got)
	}
	_, err = r.admin.StepAuthority(t.Context(), controlplane.StepTaint, next, true)
	if answer, ok := errors.AsType[*controlplane.AnswerError](err); !ok || answer.Status != http.StatusConflict || !strings.Contains(err.Error(), "prepare and activate another") {
		t.Errorf("taint of the active authority: %v", err)
	}
	if got := r.metric("chancery_authorities"); got != 2 {
		t.Errorf("metrics count %v authorities", got)
	}
}

func TestIdentitiesAndInstances(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.stream("service/orders", r.open(orders))
	r.svid(gateway)
	all, err := r.admin.Identities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range all {
		if i.Name == "service/orders" && (!i.Connected || i.Serial != r.svid(orders).Serial() || i.SPIFFEID != "spiffe://shop.example/service/orders") {
			t.Errorf("identity: %+v", i)
		}
		got = append(got, i.Name)
	}
	if want := []string{"gateway/public", "service/orders"}; !slices.Equal(slices.DeleteFunc(got, func(s string) bool { return !strings.Contains(s, "/") || strings.Contains(s, "control-plane") }), want) {
		t.Errorf("identities of %v, want %v", got, want)
	}
	r.registry.tell("orders", "192.0.2.7:80")
	var instances []controlplane.InstanceStatus
	r.until("instances are known", func() bool {
		instances, err = r.admin.Instances(t.Context())
		return err != nil || len(instances) > 0
	})
	want := []controlplane.InstanceStatus{{Service: "orders", ID: "192.0.2.7:80", Address: "192.0.2.7:80", Mesh: "192.0.2.7:80", MTLS: true}}
	if diff := cmp.Diff(want, instances); diff != "" || err != nil {
		t.Errorf("instances (-want +got):\n%s, %v", diff, err)
	}
}

func TestIdentityMetrics(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.stream("service/orders", r.open(orders))
	r.report(orders, &chancerypb.ReportRequest{
		SvidSerial: "1", SvidExpires: timestamppb.New(time.Now().Add(time.Hour)), SvidRenews: timestamppb.New(time.Now().Add(-3 * time.Hour)),
		Now: timestamppb.New(time.Now().Add(-90 * time.Second)),
	})
	if got := r.metric("chancery_clock_difference_max_seconds"); got < 89 || got > 95 {
		t.Errorf("clock difference is %v, want 90", got)
	}
	if got := r.metric("chancery_certificates_overdue"); got != 1 {
		t.Errorf("%v certificates are overdue, want 1", got)
	}
	if _, err := chancerypb.NewControlPlaneClient(r.dial(orders)).Enroll(t.Context(), &chancerypb.EnrollRequest{Csr: []byte("no CSR")}); err == nil {
		t.Error("a renewal without a key")
	}
	if got := r.metric("chancery_certificate_renewals_failed_total"); got != 1 {
		t.Errorf("%v renewals failed, want 1", got)
	}
	families, err := r.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "chancery_certificate_earliest_expiry_timestamp_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == "service/orders" {
				if got, want := m.GetGauge().GetValue(), float64(r.svid(orders).Expires().Unix()); got != want {
					t.Errorf("earliest end is %v, want %v", got, want)
				}
				return
			}
		}
	}
	t.Error("no metric tells when the certificate of service/orders ends")
}

func TestAwait(t *testing.T) {
	t.Parallel()
	r := start(t, map[string]string{}) // no documents: no certificate authority
	unserved := awaitInVain[*controlplane.AnswerError](t, r.admin)
	if unserved.Status != http.StatusServiceUnavailable {
		t.Errorf("without documents: %v", unserved)
	}
	done := make(chan error)
	go func() { done <- r.admin.Await(t.Context()) }()
	for name, text := range shop() {
		r.write(name, text)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	awaitInVain[*net.OpError](t, controlplane.NewAdminClient(t.TempDir())) // nobody there
}

// awaitInVain returns the error that Await ends with, which is an E when it had
// time enough to try.
func awaitInVain[E error](t *testing.T, c *controlplane.AdminClient) E {
	t.Helper()
	for patience := 100 * time.Millisecond; ; patience *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := c.Await(ctx)
		cancel()
		if e, ok := errors.AsType[E](err); ok {
			return e
		}
		if err == nil || patience > 10*time.Second {
			t.Fatalf("Await ends with %v", err)
		}
	}
}

func TestAdminRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.dial(orders)
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", controlplane.AdminSocket(r.run))
		},
	}}
	for name, body := range map[string]string{
		"an unknown member": `{"service":"orders","everybody":true}`,
		"no JSON":           `orders`,
		"too much":          `{"reason":"` + strings.Repeat("x", 100_000) + `"}`,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/revoke", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
	if slices.ContainsFunc(controlplane.Authority(r.server).Live(), func(c ca.Certificate) bool { return !c.Revoked.IsZero() }) {
		t.Error("something is revoked")
	}
}

// Nobody boasts of a trust that is yet to come, and of two agents with one key
// neither speaks for the other.
func TestTrustThatIsTold(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	tell := func(conn *grpc.ClientConn, sequence uint64) {
		t.Helper()
		_, err := chancerypb.NewControlPlaneClient(conn).Report(t.Context(), &chancerypb.ReportRequest{Instance: "1", TrustSequence: sequence})
		if err != nil {
			t.Fatal(err)
		}
	}
	wants := func(sequence uint64, problems int) {
		t.Helper()
		r.until(fmt.Sprint("trust is ", sequence, " with problems: ", problems), func() bool {
			p := r.proxies()
			return len(p) == 1 && p[0].Trust == sequence && len(p[0].Problems) == problems
		})
	}
	victim, thief := r.dial(orders), r.dial(orders)
	theirs := xdstest.Open(t, victim)
	theirs.Subscribe(policyType, "*")
	theirs.NextACK()
	if _, err := controlplane.Authority(r.server).RevokeSerial(r.newSVID(inventory).Serial(), "test"); err != nil {
		t.Fatal(err)
	}
	now := controlplane.Authority(r.server).Trust().GetSequence()
	tell(victim, math.MaxUint64)
	wants(now, 0)
	tell(victim, now-1)
	wants(now-1, 0)

	stream := xdstest.Open(t, thief)
	tell(thief, now) // has no stream yet
	wants(now-1, 0)
	stream.Subscribe(policyType, "*")
	stream.NextACK()
	tell(thief, now)
	wants(now-1, 1)
	tell(victim, now)
	wants(now, 1)
	tell(thief, now-1)
	wants(now-1, 1)
	stream.Close()
	wants(now, 0)
}
