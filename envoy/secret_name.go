package envoy

import (
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// SecretNames returns the names of the secrets that the listeners among resources
// ask for by SDS, sorted.
func SecretNames(resources []Resource) []string {
	names := map[string]bool{}
	for _, r := range resources {
		l, ok := r.Message.(*listenerv3.Listener)
		if !ok {
			continue
		}
		for _, chain := range append(slices.Clone(l.GetFilterChains()), l.GetDefaultFilterChain()) {
			for _, config := range secretConfigs(chain.GetTransportSocket()) {
				names[config.GetName()] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// secretConfigs returns what a socket of a listener asks for, without what is
// not set.
func secretConfigs(socket *corev3.TransportSocket) []*tlsv3.SdsSecretConfig {
	var context tlsv3.DownstreamTlsContext
	if socket.GetTypedConfig().UnmarshalTo(&context) != nil {
		return nil
	}
	common := context.GetCommonTlsContext()
	configs := append(slices.Clone(common.GetTlsCertificateSdsSecretConfigs()),
		common.GetValidationContextSdsSecretConfig(),
		common.GetCombinedValidationContext().GetValidationContextSdsSecretConfig())
	return slices.DeleteFunc(configs, func(c *tlsv3.SdsSecretConfig) bool { return c == nil })
}
