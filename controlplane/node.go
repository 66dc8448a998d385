package controlplane

import (
	"strings"
	"unicode"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	// maxNode bounds what a client says of itself, metadata and all.
	maxNode = 64 << 10
	// maxTypeURL bounds the name of a type.
	maxTypeURL = 256
)

// node is how a stream's client calls itself. It is for people to read and
// decides nothing, so one that is odd is a mistake or worse.
type node struct{ id, cluster string }

// nodeOf checks a client's node.
func nodeOf(n *corev3.Node) (node, error) {
	switch {
	case n == nil:
		return node{}, status.Error(codes.InvalidArgument, "the first request names no node")
	case proto.Size(n) > maxNode:
		return node{}, status.Errorf(codes.InvalidArgument, "a node of more than %d bytes", maxNode)
	}
	for _, name := range []string{n.GetId(), n.GetCluster()} {
		if len(name) > maxName || strings.ContainsFunc(name, unicode.IsControl) {
			return node{}, status.Errorf(codes.InvalidArgument, "a node's id or cluster of more than %d bytes, or with control characters", maxName)
		}
	}
	return node{id: n.GetId(), cluster: n.GetCluster()}, nil
}

// introduce takes the node of the first request, and holds the client to it.
func (str *stream) introduce(req *discoveryv3.DeltaDiscoveryRequest) error {
	if len(req.GetTypeUrl()) > maxTypeURL {
		return status.Errorf(codes.InvalidArgument, "a type URL of more than %d bytes", maxTypeURL)
	}
	if str.proxy != nil && req.GetNode() == nil {
		return nil
	}
	n, err := nodeOf(req.GetNode())
	if err != nil {
		return err
	}
	if str.proxy != nil && n != str.node {
		return status.Error(codes.InvalidArgument, "the node changed")
	}
	if str.proxy == nil {
		str.node = n
		str.proxy = str.server.proxies.connect(str.id, str.lineage, n.id, str.connection)
	}
	return nil
}
