package sidecar

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-mesh/chancery/internal/xds"
)

// secretService serves the secrets, and knows which versions of them Envoy
// took. Envoy opens a stream of their own for each. It is safe for concurrent
// use.
type secretService struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
	secrets  *xds.Collection
	problems *problems
	nacks    *prometheus.CounterVec
	log      *slog.Logger
	// changed is called after each of Envoy's requests and answers.
	changed func()

	mu      sync.Mutex
	streams map[*secretStream]struct{}
}

var _ xds.Source = (*secretService)(nil)

// DeltaSecrets implements the secret discovery service.
func (s *secretService) DeltaSecrets(stream secretv3.SecretDiscoveryService_DeltaSecretsServer) error {
	account := s.open()
	defer s.close(account)
	return xds.Serve(stream.Context(), stream, s, account)
}

// Collection implements xds.Source.
func (s *secretService) Collection(typeURL string) (*xds.Collection, func(string) bool, error) {
	if typeURL != resource.SecretType {
		return nil, nil, fmt.Errorf("type %q is not served here", typeURL)
	}
	return s.secrets, nil, nil
}

func (s *secretService) open() *secretStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	stream := &secretStream{service: s, held: map[string]string{}, sent: map[string]*discoveryv3.DeltaDiscoveryResponse{}}
	if s.streams == nil {
		s.streams = map[*secretStream]struct{}{}
	}
	s.streams[stream] = struct{}{}
	return stream
}

func (s *secretService) close(stream *secretStream) {
	s.mu.Lock()
	delete(s.streams, stream)
	s.mu.Unlock()
	s.changed()
}

// held returns the versions of a secret that Envoy has: one for each stream
// that asked for it, empty where it has taken none.
func (s *secretService) held(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var versions []string
	for stream := range s.streams {
		if version, asked := stream.held[name]; asked {
			versions = append(versions, version)
		}
	}
	return versions
}

// secretStream is the account of one stream. It implements xds.Observer.
type secretStream struct {
	service *secretService
	// held are the versions that Envoy acknowledged of what it asked for.
	held map[string]string
	// sent are the responses without an answer, by nonce.
	sent map[string]*discoveryv3.DeltaDiscoveryResponse
}

var _ xds.Observer = (*secretStream)(nil)

// Requested implements xds.Observer.
func (st *secretStream) Requested(req *discoveryv3.DeltaDiscoveryRequest) error {
	st.service.mu.Lock()
	maps.Copy(st.held, req.GetInitialResourceVersions())
	for _, name := range req.GetResourceNamesSubscribe() {
		st.held[name] += "" // asked for
	}
	for _, name := range req.GetResourceNamesUnsubscribe() {
		delete(st.held, name)
	}
	resp := st.sent[req.GetResponseNonce()]
	delete(st.sent, req.GetResponseNonce())
	if resp != nil && req.GetErrorDetail() == nil {
		for _, r := range resp.GetResources() {
			st.held[r.GetName()] = r.GetVersion()
		}
	}
	st.service.mu.Unlock()
	if resp != nil {
		st.service.answered(resp, req.GetErrorDetail().GetMessage())
	}
	st.service.changed()
	return nil
}

// Responding implements xds.Observer.
func (st *secretStream) Responding(resp *discoveryv3.DeltaDiscoveryResponse) {
	st.service.mu.Lock()
	defer st.service.mu.Unlock()
	st.sent[resp.GetNonce()] = resp
}

// answered is loud about a secret that Envoy rejected: it goes on with the one
// before, which will end.
func (s *secretService) answered(resp *discoveryv3.DeltaDiscoveryResponse, reason string) {
	names := make([]string, 0, len(resp.GetResources()))
	for _, r := range resp.GetResources() {
		names = append(names, r.GetName())
		s.problems.set("secret "+r.GetName(), reason)
	}
	if reason != "" {
		s.nacks.WithLabelValues(resource.SecretType).Inc()
		s.log.Error("envoy rejected secrets", "resources", slices.Sorted(slices.Values(names)), "err", reason)
	}
}
