package opaenvoy

import (
	"encoding/base64"
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
)

func item(name string, v ast.Value) [2]*ast.Term {
	return [2]*ast.Term{ast.InternedTerm(name), ast.NewTerm(v)}
}

func stringsValue(list []string) ast.Value {
	terms := make([]*ast.Term, len(list))
	for i, s := range list {
		terms[i] = ast.StringTerm(s)
	}
	return ast.NewArray(terms...)
}

func queryValue(query map[string][]string) ast.Value {
	o := ast.NewObjectWithCapacity(len(query))
	for name, values := range query {
		o.Insert(ast.StringTerm(name), ast.NewTerm(stringsValue(values)))
	}
	return o
}

// headersField is the map of headers in a check request.
const headersField = "envoy.service.auth.v3.AttributeContext.HttpRequest.headers"

// messageMembers returns the fields of a message that are set, by their JSON
// names, as the plugin writes them: time stamps are seconds and nanos, bytes are
// base64, enums are numbers. headers stand in the place of the request's.
func messageMembers(m protoreflect.Message, headers map[string]string) [][2]*ast.Term {
	var members [][2]*ast.Term
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if field.FullName() != headersField {
			members = append(members, item(field.JSONName(), fieldValue(field, v, headers)))
		}
		return true
	})
	if f := m.Descriptor().Fields().ByName("headers"); f != nil && f.FullName() == headersField && len(headers) > 0 {
		o := ast.NewObjectWithCapacity(len(headers))
		for name, value := range headers {
			o.Insert(ast.StringTerm(name), ast.StringTerm(value))
		}
		members = append(members, item("headers", o))
	}
	return members
}

func fieldValue(field protoreflect.FieldDescriptor, v protoreflect.Value, headers map[string]string) ast.Value {
	switch {
	case field.IsMap():
		o := ast.NewObject()
		v.Map().Range(func(key protoreflect.MapKey, v protoreflect.Value) bool {
			o.Insert(ast.StringTerm(key.String()), ast.NewTerm(singleValue(field.MapValue(), v, headers)))
			return true
		})
		return o
	case field.IsList():
		list := v.List()
		terms := make([]*ast.Term, list.Len())
		for i := range terms {
			terms[i] = ast.NewTerm(singleValue(field, list.Get(i), headers))
		}
		return ast.NewArray(terms...)
	}
	return singleValue(field, v, headers)
}

func singleValue(field protoreflect.FieldDescriptor, v protoreflect.Value, headers map[string]string) ast.Value {
	switch field.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		if s, ok := v.Message().Interface().(*structpb.Struct); ok {
			return structValue(s)
		}
		return ast.NewObject(messageMembers(v.Message(), headers)...)
	case protoreflect.StringKind:
		return ast.String(v.String())
	case protoreflect.BytesKind:
		return ast.String(base64.StdEncoding.EncodeToString(v.Bytes()))
	case protoreflect.BoolKind:
		return ast.Boolean(v.Bool())
	case protoreflect.EnumKind:
		return ast.Number(strconv.Itoa(int(v.Enum())))
	}
	return ast.Number(v.String())
}

func structValue(s *structpb.Struct) ast.Value {
	o := ast.NewObjectWithCapacity(len(s.GetFields()))
	for name, v := range s.GetFields() {
		o.Insert(ast.StringTerm(name), ast.NewTerm(structField(v)))
	}
	return o
}

func structField(v *structpb.Value) ast.Value {
	switch v := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return ast.String(v.StringValue)
	case *structpb.Value_BoolValue:
		return ast.Boolean(v.BoolValue)
	case *structpb.Value_NumberValue:
		return ast.Number(strconv.FormatFloat(v.NumberValue, 'g', -1, 64))
	case *structpb.Value_StructValue:
		return structValue(v.StructValue)
	case *structpb.Value_ListValue:
		terms := make([]*ast.Term, len(v.ListValue.GetValues()))
		for i, e := range v.ListValue.GetValues() {
			terms[i] = ast.NewTerm(structField(e))
		}
		return ast.NewArray(terms...)
	}
	return ast.Null{}
}
