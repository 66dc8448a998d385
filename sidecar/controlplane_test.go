package sidecar_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/attest"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/passport"
)

const trustDomain = "shop.example"

var (
	policyType       = xds.TypeURL(&chancerypb.Policy{})
	providerType     = xds.TypeURL(&chancerypb.Provider{})
	accountsType     = xds.TypeURL(&chancerypb.Accounts{})
	passportKeysType = xds.TypeURL(&chancerypb.PassportKeys{})
	signingKeysType  = xds.TypeURL(&chancerypb.SigningKeys{})
	revocationsType  = xds.TypeURL(&chancerypb.Revocations{})
	revisionType     = xds.TypeURL(&chancerypb.Revision{})
	viewTypes        = []string{resource.ClusterType, resource.RouteType, resource.ListenerType, policyType}
)

// controlPlane is a small control plane with one view, on the real protocol.
type controlPlane struct {
	chancerypb.UnimplementedControlPlaneServer
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	*authority

	t  *testing.T
	id identity.ID
	// address is where it listens, from the first start on.
	address     string
	sets        map[string]*xds.Collection
	server      *grpc.Server
	credentials *identity.ServerCredentials
	// consul verifies who joins by Consul, in tests of that.
	consul *attest.Consul

	mu          sync.Mutex
	nacks       []string
	sent        map[string]int // resources by name
	report      *chancerypb.ReportRequest
	failReports int
}

func newControlPlane(t *testing.T, id identity.ID) *controlPlane {
	t.Helper()
	cp := &controlPlane{
		t: t, id: id, authority: newAuthority(t), sent: map[string]int{}, sets: map[string]*xds.Collection{},
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	cp.address = l.Addr().String()
	check(t, l.Close())
	for _, typeURL := range append(slices.Clone(viewTypes), resource.EndpointType, providerType, accountsType, passportKeysType, signingKeysType, trustType, revocationsType, revisionType) {
		cp.sets[typeURL] = &xds.Collection{}
	}
	cp.publishTrust()
	return cp
}

// start serves until stop, or the end of the test.
func (cp *controlPlane) start() {
	cp.t.Helper()
	l, err := net.Listen("tcp", cp.address)
	if err != nil {
		cp.t.Fatal(err)
	}
	cp.credentials = identity.NewServerCredentials(cp.authority)
	server := grpc.NewServer(grpc.Creds(cp.credentials))
	cp.server = server
	chancerypb.RegisterAttestationServer(server, cp)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, cp)
	chancerypb.RegisterControlPlaneServer(server, cp)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(l); err != nil {
			cp.t.Error(err)
		}
	}()
	cp.t.Cleanup(func() { server.Stop(); <-done })
}

func (cp *controlPlane) stop() { cp.server.Stop() }

// publishTrust brings the Trust of the authority to the agents.
func (cp *controlPlane) publishTrust() {
	cp.sets[trustType].Apply([]*xds.Resource{encode(cp.t, "trust", cp.ca.Trust())})
}

// set makes the resources of the view these, one type after the other, and
// closes with the Revision.
func (cp *controlPlane) set(id string, resources ...*xds.Resource) {
	byType := byType(resources)
	for _, typeURL := range []string{resource.EndpointType, providerType, accountsType, passportKeysType} {
		cp.sets[typeURL].Apply(byType[typeURL])
	}
	for _, typeURL := range viewTypes {
		cp.sets[typeURL].Replace(byType[typeURL])
	}
	cp.announce(id, resources...)
}

// announce sends the Revision of a view.
func (cp *controlPlane) announce(id string, resources ...*xds.Resource) {
	digests, byType := map[string]string{}, byType(resources)
	for _, typeURL := range viewTypes {
		versions := map[string]string{}
		for _, r := range byType[typeURL] {
			versions[r.Name] = r.Version
		}
		digests[typeURL] = xds.DigestOf(versions).String()
	}
	cp.sets[revisionType].Replace([]*xds.Resource{encode(cp.t, "revision", &chancerypb.Revision{Id: id, Digests: digests})})
}

func byType(resources []*xds.Resource) map[string][]*xds.Resource {
	byType := map[string][]*xds.Resource{}
	for _, r := range resources {
		byType[r.TypeURL] = append(byType[r.TypeURL], r)
	}
	return byType
}

func (cp *controlPlane) DeltaAggregatedResources(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	if p, _ := peer.FromContext(s.Context()); p.AuthInfo.(identity.Peer).ID != cp.id {
		return errors.New("no stream for strangers")
	}
	return xds.Serve(s.Context(), s, cp, cp)
}

func (cp *controlPlane) Collection(typeURL string) (*xds.Collection, func(string) bool, error) {
	if c := cp.sets[typeURL]; c != nil {
		return c, nil, nil
	}
	return nil, nil, errors.New("not served: " + typeURL)
}

func (cp *controlPlane) Requested(req *discoveryv3.DeltaDiscoveryRequest) error {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	if detail := req.GetErrorDetail(); detail != nil {
		cp.nacks = append(cp.nacks, req.GetTypeUrl()+": "+detail.GetMessage())
	}
	return nil
}

func (cp *controlPlane) Responding(resp *discoveryv3.DeltaDiscoveryResponse) {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	for _, r := range resp.GetResources() {
		cp.sent[r.GetName()]++
	}
}

func (cp *controlPlane) Enroll(ctx context.Context, req *chancerypb.EnrollRequest) (*chancerypb.EnrollResponse, error) {
	resp, err := cp.renew(ctx, req.GetCsr())
	if err == nil {
		cp.readied(req.GetPassportKeys())
	}
	return resp, err
}

func (cp *controlPlane) JoinWithToken(ctx context.Context, req *chancerypb.JoinWithTokenRequest) (*chancerypb.EnrollResponse, error) {
	resp, err := cp.authority.JoinWithToken(ctx, req)
	if err == nil {
		cp.readied(req.GetEnroll().GetPassportKeys())
	}
	return resp, err
}

// readied says that every PDP has these keys.
func (cp *controlPlane) readied(jwks [][]byte) {
	if cp.id.Role != identity.RoleGateway {
		return
	}
	keys := &chancerypb.SigningKeys{}
	for _, jwk := range jwks {
		id, _, err := passport.ParseKey(jwk, cp.id.SPIFFE(trustDomain))
		if err != nil {
			cp.t.Error(err)
		}
		keys.Ready = append(keys.Ready, id)
	}
	cp.sets[signingKeysType].Apply([]*xds.Resource{encode(cp.t, cp.id.Name, keys)})
}

func (cp *controlPlane) Report(_ context.Context, req *chancerypb.ReportRequest) (*chancerypb.ReportResponse, error) {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	if cp.failReports > 0 {
		cp.failReports--
		return nil, errors.New("not now")
	}
	cp.report = req
	return &chancerypb.ReportResponse{}, nil
}

func (cp *controlPlane) lastReport() *chancerypb.ReportRequest {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	return cp.report
}

func (cp *controlPlane) rejections() []string {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	return slices.Clone(cp.nacks)
}

func (cp *controlPlane) timesSent(name string) int {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	return cp.sent[name]
}

func encode(t *testing.T, name string, m proto.Message) *xds.Resource {
	t.Helper()
	r, err := xds.New(name, m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
