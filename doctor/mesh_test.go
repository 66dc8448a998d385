package doctor_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/doctor"
)

func TestMesh(t *testing.T) {
	t.Parallel()
	well := controlplane.Status{
		Documents: controlplane.DocumentsStatus{Dir: "mesh", Valid: true},
		Authority: &controlplane.AuthorityStatus{Next: []controlplane.StepStatus{{Step: controlplane.StepPrepare}}},
	}
	expect(t, doctor.Mesh(well, []controlplane.ProxyStatus{
		{Name: "service/orders", Instance: "a", Connected: true},
		{Name: "service/orders", Instance: "a", Problems: []string{"certificate 4f was revoked"}}, // and it joined anew
	}))

	ill := controlplane.Status{
		NotReady: "no endpoints", Documents: controlplane.DocumentsStatus{Dir: "mesh"},
		Authority: &controlplane.AuthorityStatus{Next: []controlplane.StepStatus{{Step: controlplane.StepPrepare, Error: "root.key: no such file"}}},
	}
	const overdue = "certificate 5b ends at 12:00 and should have been renewed at 11:30"
	expect(t, doctor.Mesh(ill, []controlplane.ProxyStatus{
		{Name: "gateway/public", Instance: "b", Connected: true, Problems: []string{"its clock is 9s ahead", overdue}},
		{Name: "service/orders", Instance: "a", Problems: []string{overdue}},
	}),
		finding{doctor.Problem, "control plane", "no endpoints"},
		finding{doctor.Problem, "mesh", "documents are not valid"},
		finding{doctor.Problem, "certificate authority", "root.key: no such file"},
		finding{doctor.Problem, "gateway/public b", "9s ahead"},
		finding{doctor.Problem, "gateway/public b", overdue},
		finding{doctor.Note, "service/orders a", "not connected"},
		finding{doctor.Problem, "service/orders a", overdue})
}

func TestAbsent(t *testing.T) {
	t.Parallel()
	status := controlplane.Status{Views: []controlplane.ViewStatus{
		{Name: "gateway/public"}, {Name: "gateway/partners"}, {Name: "service/orders"}, {Name: "service/idle"},
	}}
	expect(t, doctor.Absent(status, []controlplane.ProxyStatus{
		{Name: "gateway/public", Connected: true},
		{Name: "service/inventory", Connected: true},
		{Name: "service/orders"},
	}, []doctor.Instance{
		{Service: "orders", MTLS: true}, {Service: "orders", MTLS: true}, {Service: "inventory", MTLS: true}, {Service: "legacy"},
	}),
		finding{doctor.Problem, "gateway/partners", "has a document, and no agent"},
		finding{doctor.Problem, "service/orders", "is registered, and no agent"})
}

func TestInstances(t *testing.T) {
	t.Parallel()
	instances, found := doctor.Instances([]controlplane.InstanceStatus{
		{Service: "orders", ID: "1", Address: "10.0.0.5:8080", Mesh: "10.0.0.5:15006", MTLS: true},
		{Service: "legacy", ID: "2", Address: "10.0.0.6:80"},
		{Service: "odd", ID: "3", Address: "nowhere"},
		{Service: "odd", ID: "4", Address: "10.0.0.7:80", Mesh: "10.0.0.7"},
	})
	want := []doctor.Instance{
		{Service: "orders", ID: "1", Address: netip.MustParseAddrPort("10.0.0.5:8080"), Mesh: netip.MustParseAddrPort("10.0.0.5:15006"), MTLS: true},
		{Service: "legacy", ID: "2", Address: netip.MustParseAddrPort("10.0.0.6:80")},
	}
	if diff := cmp.Diff(want, instances, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("instances (-want +got):\n%s", diff)
	}
	expect(t, found, finding{doctor.Problem, "odd/3", "not an ip:port"}, finding{doctor.Problem, "odd/4", "not an ip:port"})
}
