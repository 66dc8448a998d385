package attacks_test

import (
	"slices"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/golden"
	"github.com/chancery-mesh/chancery/mesh"
)

// Attack rows F05, F06, F09, F12, F13, F16, F17, H14 and P18, whatever the
// documents: nothing in Envoy's configuration lets a request by.
func TestConfiguration(t *testing.T) {
	t.Parallel()
	check := func(t *testing.T, m *mesh.Mesh) {
		t.Helper()
		for _, g := range m.Gateways {
			checkResources(t, envoy.Gateway(m, g))
		}
		for _, s := range m.Services {
			checkResources(t, envoy.Sidecar(m, s))
		}
	}
	check(t, compile(t).Mesh)
	golden.Each(t, "../../envoy/testdata/*.txtar", func(t *testing.T, input golden.Files) {
		m, err := mesh.Parse("input.yaml", []byte(input["input.yaml"])).Compile(mesh.Options{})
		if err != nil {
			t.Fatal(err)
		}
		check(t, m)
	})
}

func checkResources(t *testing.T, resources []envoy.Resource) {
	t.Helper()
	for _, r := range resources {
		switch message := r.Message.(type) {
		case *listenerv3.Listener:
			checkListener(t, message)
		case *routev3.RouteConfiguration:
			checkRoutes(t, message)
		}
	}
}

// mayPrecede are the filters that may see a request before it is checked: what
// removes from answers, and what limits addresses.
var mayPrecede = []string{"envoy.filters.http.header_mutation", "chancery.peer_limit"}

func checkListener(t *testing.T, l *listenerv3.Listener) {
	t.Helper()
	if l.GetUdpListenerConfig() != nil || l.GetAddress().GetSocketAddress().GetProtocol() != corev3.SocketAddress_TCP {
		t.Errorf("F17 %s: is no listener of TCP", l.GetName())
	}
	chains := slices.Clone(l.GetFilterChains())
	if l.GetDefaultFilterChain() != nil {
		chains = append(chains, l.GetDefaultFilterChain())
	}
	for _, chain := range chains {
		for _, filter := range chain.GetFilters() {
			manager := &hcmv3.HttpConnectionManager{}
			if filter.GetTypedConfig().MessageIs(manager) {
				unpack(t, filter.GetTypedConfig(), manager)
				checkManager(t, l.GetName(), manager)
			}
		}
	}
}

func checkManager(t *testing.T, listener string, m *hcmv3.HttpConnectionManager) {
	t.Helper()
	if m.GetNormalizePath().GetValue() || m.GetMergeSlashes() || m.GetPathWithEscapedSlashesAction() != hcmv3.HttpConnectionManager_REJECT_REQUEST ||
		m.GetPathNormalizationOptions() != nil {
		t.Errorf("P18 %s: repairs paths", listener)
	}
	if len(m.GetUpgradeConfigs()) > 0 || m.GetHttp3ProtocolOptions() != nil || m.GetCodecType() == hcmv3.HttpConnectionManager_HTTP3 ||
		m.GetHttp2ProtocolOptions().GetAllowConnect() || m.GetHttpProtocolOptions().GetAcceptHttp_10() {
		t.Errorf("F03 and F17 %s: takes more than requests", listener)
	}
	if listener == envoy.ListenerOutbound {
		return // the other end is asked
	}
	var names []string
	for _, filter := range m.GetHttpFilters() {
		names = append(names, filter.GetName())
		if filter.GetDisabled() || filter.GetIsOptional() {
			t.Errorf("F13 %s: %s may be missing", listener, filter.GetName())
		}
		config := &extauthzv3.ExtAuthz{}
		if filter.GetTypedConfig().MessageIs(config) {
			unpack(t, filter.GetTypedConfig(), config)
			checkAuthz(t, listener, config)
		}
	}
	at := slices.Index(names, "envoy.filters.http.ext_authz")
	if at < 0 || slices.ContainsFunc(names[:at], func(name string) bool { return !slices.Contains(mayPrecede, name) }) ||
		slices.Contains(names[at+1:], "envoy.filters.http.ext_authz") || names[len(names)-1] != "envoy.filters.http.router" {
		t.Errorf("F13 %s: filters are %v", listener, names)
	}
}

func checkAuthz(t *testing.T, listener string, c *extauthzv3.ExtAuthz) {
	t.Helper()
	if c.GetFailureModeAllow() || c.GetStatusOnError().GetCode() < 400 {
		t.Errorf("F09 %s: lets in what nobody decided", listener)
	}
	if c.GetFilterEnabled() != nil || c.GetFilterEnabledMetadata() != nil || c.GetDenyAtDisable() != nil {
		t.Errorf("F13 %s: may be turned off", listener)
	}
	if c.GetClearRouteCache() || !c.GetValidateMutations() {
		t.Errorf("F12 and H12 %s: an answer may change the route, or be no header", listener)
	}
	if !c.GetEncodeRawHeaders() || !c.GetIncludePeerCertificate() || !c.GetWithRequestBody().GetPackAsBytes() || c.GetWithRequestBody().GetAllowPartialMessage() {
		t.Errorf("F06 and F08 %s: does not show what was sent", listener)
	}
}

func checkRoutes(t *testing.T, config *routev3.RouteConfiguration) {
	t.Helper()
	for _, host := range config.GetVirtualHosts() {
		for _, route := range host.GetRoutes() {
			action := route.GetRoute()
			//nolint:staticcheck // the old field lets redirects be followed, too
			follows := action.GetInternalRedirectPolicy() != nil || action.GetInternalRedirectAction() != 0
			if route.GetRedirect() != nil || follows || len(action.GetRequestMirrorPolicies()) > 0 || action.GetHedgePolicy() != nil {
				t.Errorf("F15, F16 and H14 %s: goes where nobody was asked about", route.GetName())
			}
			override := &extauthzv3.ExtAuthzPerRoute{}
			if packed := route.GetTypedPerFilterConfig()["envoy.filters.http.ext_authz"]; packed != nil {
				unpack(t, packed, override)
			}
			if override.GetCheckSettings().GetWithRequestBody().GetAllowPartialMessage() {
				t.Errorf("F06 %s: shows parts of bodies", route.GetName())
			}
		}
	}
}

func unpack(t *testing.T, packed *anypb.Any, message proto.Message) {
	t.Helper()
	if err := packed.UnmarshalTo(message); err != nil {
		t.Fatal(err)
	}
}
