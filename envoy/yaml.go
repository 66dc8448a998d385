package envoy

import (
	"fmt"

	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// YAML returns m as Envoy reads it from a file: the fields' own names, sorted,
// equal bytes for equal messages.
func YAML(m proto.Message) ([]byte, error) {
	// protojson varies its white space on purpose.
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	var value any // JSON is YAML
	if err := yaml.Load(text, &value); err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return yaml.Dump(value, yaml.WithIndent(2))
}
