// Package xds holds what both ends of Chancery's delta xDS share: resources
// that are encoded once, collections of them with the watches that are open on
// them, and the serving of one delta ADS stream on go-control-plane's server.
//
// It stands beside go-control-plane's caches because those encode a resource
// once per cache rather than once per mesh, hand one collection to every
// client, and leave a subscription to a name that does not exist unanswered,
// which makes Envoy wait out its fetch timeout.
package xds

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Resource is one xDS resource, encoded. It is immutable and shared by all
// collections and streams that carry it.
type Resource struct {
	TypeURL string
	Name    string
	// Version is a hash of the content, so replicas agree and equal content
	// is never sent again.
	Version string
	body    *anypb.Any
}

// New encodes a message. Equal messages have equal versions.
func New(name string, m proto.Message) (*Resource, error) { return NewLike(name, m, m) }

// NewLike encodes a message with the version that another one would have: where
// two differ only in what nobody decides by, one is as good as the other, and is
// not sent again.
func NewLike(name string, m, like proto.Message) (*Resource, error) {
	r, err := encode(name, m)
	if err != nil || m == like {
		return r, err
	}
	other, err := encode(name, like)
	if err != nil {
		return nil, err
	}
	r.Version = other.Version
	return r, nil
}

// Pinned returns the resource under a name that no other content ever has: who
// refers to it means this version.
func (r *Resource) Pinned() *Resource {
	pinned := *r
	pinned.Name += "@" + r.Version
	return &pinned
}

// Unpin takes a name apart that a pinned resource has. The version of any other
// is empty.
func Unpin(name string) (unpinned, version string) {
	unpinned, version, _ = strings.Cut(name, "@")
	return unpinned, version
}

func encode(name string, m proto.Message) (*Resource, error) {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode resource %q: %w", name, err)
	}
	sum := sha256.Sum256(value)
	typeURL := TypeURL(m)
	return &Resource{
		TypeURL: typeURL,
		Name:    name,
		Version: hex.EncodeToString(sum[:8]),
		body:    &anypb.Any{TypeUrl: typeURL, Value: value},
	}, nil
}

// FromDelta takes a resource as a delta response carries it.
func FromDelta(r *discoveryv3.Resource) *Resource {
	return &Resource{
		TypeURL: r.GetResource().GetTypeUrl(),
		Name:    r.GetName(),
		Version: r.GetVersion(),
		body:    r.GetResource(),
	}
}

// TypeURL returns the type URL of a message's type.
func TypeURL(m proto.Message) string {
	return "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())
}

// Decode decodes the resource into m, which must be of its type.
func (r *Resource) Decode(m proto.Message) error {
	if err := r.body.UnmarshalTo(m); err != nil {
		return fmt.Errorf("decode resource %q: %w", r.Name, err)
	}
	return nil
}

// Delta returns the resource as a delta response carries it. The message is
// shared and must not be changed.
func (r *Resource) Delta() *discoveryv3.Resource {
	return &discoveryv3.Resource{Name: r.Name, Version: r.Version, Resource: r.body}
}

// Digest identifies a set of resources by names and versions, whatever their
// order. It guards against mistakes, not against forgery.
type Digest [2]uint64

// DigestOf returns the digest of a set given as versions by name.
func DigestOf(versions map[string]string) Digest {
	var d Digest
	for name, version := range versions {
		sum := sha256.Sum256([]byte(name + "\x00" + version))
		d[0] += binary.BigEndian.Uint64(sum[:8])
		d[1] += binary.BigEndian.Uint64(sum[8:16])
	}
	return d
}

// String returns the digest in hexadecimal.
func (d Digest) String() string { return fmt.Sprintf("%016x%016x", d[0], d[1]) }
