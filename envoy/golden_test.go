package envoy_test

import (
	"bytes"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/envoytest"
	"github.com/chancery-mesh/chancery/internal/golden"
	"github.com/chancery-mesh/chancery/mesh"
)

var parts = map[string]string{
	resourcev3.ClusterType:  "clusters.yaml",
	resourcev3.ListenerType: "listeners.yaml",
	resourcev3.RouteType:    "routes.yaml",
}

func TestGolden(t *testing.T) {
	t.Parallel()
	golden.Run(t, "testdata/*.txtar", func(t *testing.T, input golden.Files) golden.Files {
		m, err := mesh.Parse("input.yaml", []byte(input["input.yaml"])).Compile(mesh.Options{})
		if err != nil {
			t.Fatal(err)
		}
		output := golden.Files{}
		for _, g := range m.Gateways {
			write(t, output, "gateway-"+g.Name, envoy.Gateway(m, g))
		}
		for _, s := range m.Services {
			write(t, output, "service-"+s.Name, envoy.Sidecar(m, s))
		}
		return output
	})
}

// write adds a view to output, one part for each type.
func write(t *testing.T, output golden.Files, view string, resources []envoy.Resource) {
	t.Helper()
	for _, r := range resources {
		text, err := envoy.YAML(r.Message)
		if err != nil {
			t.Fatal(err)
		}
		part := view + "/" + parts[r.TypeURL]
		output[part] += "# " + r.Name + ", made of"
		for _, id := range r.Documents {
			output[part] += " " + id.String()
		}
		output[part] += "\n" + string(text)
	}
}

// TestGoldenIsValid has Envoy judge what the golden cases make.
func TestGoldenIsValid(t *testing.T) {
	t.Parallel()
	golden.Each(t, "testdata/*.txtar", func(t *testing.T, input golden.Files) {
		t.Parallel()
		envoytest.Path(t)
		m, err := mesh.Parse("input.yaml", []byte(input["input.yaml"])).Compile(mesh.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range m.Gateways {
			validate(t, envoy.Gateway(m, g))
		}
		for _, s := range m.Services {
			validate(t, envoy.Sidecar(m, s))
		}
	})
}

// validate hands Envoy a view as static resources, with the routes, which it
// would not look at otherwise, in their listeners.
func validate(t *testing.T, resources []envoy.Resource) {
	t.Helper()
	bootstrap := envoy.Bootstrap(envoy.BootstrapConfig{
		NodeID: "test", Cluster: "test", Socket: "envoy.sock", AdminSocket: "admin.sock",
	})
	routes := map[string]*routev3.RouteConfiguration{}
	for _, r := range resources {
		if config, ok := r.Message.(*routev3.RouteConfiguration); ok {
			routes[r.Name] = config
		}
	}
	static := bootstrap.StaticResources
	for _, r := range resources {
		switch m := r.Message.(type) {
		case *clusterv3.Cluster:
			static.Clusters = append(static.Clusters, m)
		case *listenerv3.Listener:
			static.Listeners = append(static.Listeners, withRoutes(t, m, routes[r.Name]))
		}
	}
	envoytest.Validate(t, bootstrap)
}

func withRoutes(t *testing.T, l *listenerv3.Listener, routes *routev3.RouteConfiguration) *listenerv3.Listener {
	t.Helper()
	l = proto.CloneOf(l)
	for _, chain := range l.GetFilterChains() {
		filter := chain.GetFilters()[0]
		manager := &hcmv3.HttpConnectionManager{}
		if err := filter.GetTypedConfig().UnmarshalTo(manager); err != nil {
			t.Fatal(err)
		}
		manager.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes}
		config, err := anypb.New(manager)
		if err != nil {
			t.Fatal(err)
		}
		filter.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: config}
	}
	return l
}

// Equal documents make equal bytes, or Envoys would be sent what they have.
func TestDeterministic(t *testing.T) {
	t.Parallel()
	golden.Each(t, "testdata/*.txtar", func(t *testing.T, input golden.Files) {
		t.Parallel()
		marshal := func() []byte {
			m, err := mesh.Parse("input.yaml", []byte(input["input.yaml"])).Compile(mesh.Options{})
			if err != nil {
				t.Fatal(err)
			}
			var all [][]byte
			views := [][]envoy.Resource{}
			for _, g := range m.Gateways {
				views = append(views, envoy.Gateway(m, g))
			}
			for _, s := range m.Services {
				views = append(views, envoy.Sidecar(m, s))
			}
			for _, view := range views {
				for _, r := range view {
					b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.Message)
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, b)
				}
			}
			return bytes.Join(all, nil)
		}
		want := marshal()
		for range 20 {
			if !bytes.Equal(marshal(), want) {
				t.Fatal("equal documents made different resources")
			}
		}
	})
}
