package consul_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/chancery-mesh/chancery/discovery/consul"
	"github.com/chancery-mesh/chancery/internal/consultest"
	"github.com/chancery-mesh/chancery/internal/registrytest"
)

// Rows N02 and N03: only what can be an instance becomes one.
func TestEntries(t *testing.T) {
	t.Parallel()
	change := func(f func(e *api.ServiceEntry)) *api.ServiceEntry {
		e := consultest.Entry("orders", registrytest.Instance(7, true))
		f(e)
		return e
	}
	status := func(s string) func(*api.ServiceEntry) {
		return func(e *api.ServiceEntry) {
			e.Checks[0].Status = s
			e.Service.Weights = api.AgentWeights{Passing: 10, Warning: 3}
		}
	}
	for _, c := range []struct {
		name   string
		change func(*api.ServiceEntry)
		want   string
	}{
		{"as it is", func(*api.ServiceEntry) {}, "10.1.2.3:8007 [fd00::1]:21007 8 passing"},
		{"passing", status("passing"), "10.1.2.3:8007 [fd00::1]:21007 10 passing"},
		{"warning", status("warning"), "10.1.2.3:8007 [fd00::1]:21007 3 warning"},
		{"critical", status("critical"), ""},
		{"status that is none", status("sound"), ""},
		{"maintenance", func(e *api.ServiceEntry) { e.Checks[0].CheckID = api.NodeMaint }, ""},
		{"warning without weight", func(e *api.ServiceEntry) {
			e.Checks[0].Status = "warning"
			e.Service.Weights.Warning = 0
		}, ""},
		{"negative weight", func(e *api.ServiceEntry) { e.Service.Weights.Passing = -1 }, ""},
		{"no checks", func(e *api.ServiceEntry) { e.Checks = nil }, "10.1.2.3:8007 [fd00::1]:21007 8 passing"},
		{"node's address", func(e *api.ServiceEntry) { e.Service.Address = "" }, "10.255.255.1:8007 [fd00::1]:21007 8 passing"},
		{"mesh without address", func(e *api.ServiceEntry) {
			e.Service.TaggedAddresses["mesh"] = api.ServiceAddress{Port: 99}
		}, "10.1.2.3:8007 10.1.2.3:99 8 passing"},
		{"no sidecar", func(e *api.ServiceEntry) { e.Service.TaggedAddresses = nil }, "10.1.2.3:8007 invalid AddrPort 8 passing"},
		{"sidecar at a name", func(e *api.ServiceEntry) {
			e.Service.TaggedAddresses["mesh"] = api.ServiceAddress{Address: "localhost", Port: 99}
		}, ""},
		{"sidecar without port", func(e *api.ServiceEntry) {
			e.Service.TaggedAddresses["mesh"] = api.ServiceAddress{Address: "10.1.2.3"}
		}, ""},
		{"host name", func(e *api.ServiceEntry) { e.Service.Address = "localhost" }, ""},
		{"metadata service", func(e *api.ServiceEntry) { e.Service.Address = "169.254.169.254" }, ""},
		{"port 65536", func(e *api.ServiceEntry) { e.Service.Port = 65536 }, ""},
		{"another service", func(e *api.ServiceEntry) { e.Service.Service = "payments" }, ""},
		{"no node", func(e *api.ServiceEntry) { e.Node = nil }, ""},
		{"no service", func(e *api.ServiceEntry) { e.Service = nil }, ""},
		{"meta and tags change nothing", func(e *api.ServiceEntry) {
			e.Service.Meta = map[string]string{"auth": "off", "mtls": "off", "weight": "100"}
			e.Service.Tags = []string{"policy=allow\nroute=/admin"}
		}, "10.1.2.3:8007 [fd00::1]:21007 8 passing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			inMesh(t, consul.Config{}, func(m *mesh) {
				// Beside instances that stay, so that nothing is held.
				entries := []*api.ServiceEntry{change(c.change), nil}
				for n := range uint16(4) {
					entries = append(entries, consultest.Entry("orders", registrytest.Instance(n+1, true)))
				}
				m.fake.SetEntries("orders", entries...)
				m.after(0)
				got := ""
				for _, i := range m.last.Load().Instances {
					if strings.HasSuffix(i.ID, "-7") {
						got = strings.Join([]string{i.Address.String(), i.Mesh.String(), strconv.Itoa(int(i.Weight)), string(i.Health)}, " ")
					}
				}
				if d := cmp.Diff(c.want, got); d != "" || len(m.last.Load().Instances) < 4 {
					t.Errorf("instance (-want +got):\n%s", d)
				}
			})
		})
	}
}
