package wire_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/extauthz/wire"
)

// full has a value in every field that Envoy has.
func full() *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Protocol: corev3.SocketAddress_UDP, Address: "192.0.2.1", ResolverName: "x", Ipv4Compat: true,
				PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 51234}, NetworkNamespaceFilepath: "/x",
			}}},
			Service: "web", Labels: map[string]string{"a": "b"}, Principal: "spiffe://shop.example/service/web",
			Certificate: "-----BEGIN%20CERTIFICATE-----",
		},
		Destination: &authv3.AttributeContext_Peer{
			Address: &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/p", Mode: 3}}},
		},
		Request: &authv3.AttributeContext_Request{
			Time: &timestamppb.Timestamp{Seconds: 1, Nanos: 2},
			Http: &authv3.AttributeContext_HttpRequest{
				Id: "1", Method: "POST", Path: "/orders?x=1", Host: "api.test", Scheme: "https", Query: "q", Fragment: "f",
				Size: -1, Protocol: "HTTP/2", Body: "text", RawBody: []byte{0xff},
				Headers: map[string]string{"a": "1,2", "b": ""},
				HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
					{Key: "a", RawValue: []byte{0xc3, 0x28}}, {Key: "a", Value: "é"}, {Key: "empty"}, {},
				}},
			},
		},
		ContextExtensions:    map[string]string{"policy": "gateway/public", "route": "orders"},
		MetadataContext:      &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"x": {}}},
		RouteMetadataContext: &corev3.Metadata{},
		TlsSession:           &authv3.AttributeContext_TLSSession{Sni: "api.test"},
	}}
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// difference says where r is not what the protobuf library read.
func difference(r *wire.Request, m *authv3.CheckRequest) string {
	a := m.GetAttributes()
	http := a.GetRequest().GetHttp()
	var lines []wire.Pair
	for _, h := range http.GetHeaderMap().GetHeaders() {
		value := string(h.GetRawValue())
		if value == "" {
			value = h.GetValue()
		}
		lines = append(lines, wire.Pair{Name: h.GetKey(), Value: value})
	}
	type fields struct {
		Source, Destination               wire.Peer
		HTTP                              bool
		ID, Method, Path, Host            string
		Scheme, Query, Fragment, Protocol string
		Size                              int64
		Body, RawBody                     string
		Headers                           []wire.Pair
		Merged, Extensions                map[string]string
	}
	want := fields{
		peer(a.GetSource()), peer(a.GetDestination()), http != nil, http.GetId(), http.GetMethod(), http.GetPath(), http.GetHost(),
		http.GetScheme(), http.GetQuery(), http.GetFragment(), http.GetProtocol(), http.GetSize(), http.GetBody(),
		string(http.GetRawBody()), lines, http.GetHeaders(), a.GetContextExtensions(),
	}
	got := fields{
		r.Source, r.Destination, r.HTTP, r.ID, r.Method, r.Path, r.Host, r.Scheme, r.Query, r.Fragment, r.Protocol, r.Size, r.Body,
		r.RawBody, r.Headers, table(r.Merged), table(r.Extensions),
	}
	return cmp.Diff(want, got, cmpopts.EquateEmpty())
}

func peer(p *authv3.AttributeContext_Peer) wire.Peer {
	a := p.GetAddress().GetSocketAddress()
	return wire.Peer{
		Address: a.GetAddress(), Port: a.GetPortValue(), Principal: p.GetPrincipal(), Certificate: p.GetCertificate(),
	}
}

func table(pairs []wire.Pair) map[string]string {
	m := map[string]string{}
	for _, p := range pairs {
		m[p.Name] = p.Value
	}
	return m
}

func TestParseRequest(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(a *authv3.AttributeContext){
		"full":       func(*authv3.AttributeContext) {},
		"empty":      func(a *authv3.AttributeContext) { proto.Reset(a) },
		"empty HTTP": func(a *authv3.AttributeContext) { a.Request.Http = &authv3.AttributeContext_HttpRequest{} },
		"many headers": func(a *authv3.AttributeContext) {
			for range 100 {
				a.Request.Http.HeaderMap.Headers = append(a.Request.Http.HeaderMap.Headers, &corev3.HeaderValue{Key: "x", Value: "y"})
			}
		},
		"internal address": func(a *authv3.AttributeContext) {
			a.Source.Address.Address = &corev3.Address_EnvoyInternalAddress{EnvoyInternalAddress: &corev3.EnvoyInternalAddress{}}
		},
		"named port": func(a *authv3.AttributeContext) {
			a.Source.Address.GetSocketAddress().PortSpecifier = &corev3.SocketAddress_NamedPort{NamedPort: "http"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := full()
			change(m.GetAttributes())
			r := wire.ParseRequest(encode(t, m))
			if r.Fault != nil {
				t.Fatal(r.Fault)
			}
			if diff := difference(r, m); diff != "" {
				t.Errorf("(-protobuf +wire):\n%s", diff)
			}
			whole, err := r.Message()
			if diff := cmp.Diff(m, whole, protocmp.Transform()); diff != "" || err != nil {
				t.Errorf("Message: %v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestFromMessage(t *testing.T) {
	t.Parallel()
	m := full()
	if diff := difference(wire.FromMessage(m), m); diff != "" {
		t.Errorf("(-protobuf +wire):\n%s", diff)
	}
	m.Attributes.Request.Http.Path = "\xff"
	if r := wire.FromMessage(m); r.Fault == nil {
		t.Error("accepted what is not UTF-8")
	}
}

// nest encodes a message in fields of the given numbers, the outermost first.
func nest(content []byte, numbers ...protowire.Number) []byte {
	for _, number := range slices.Backward(numbers) {
		content = protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), content)
	}
	return content
}

func TestParseRequestRefuses(t *testing.T) {
	t.Parallel()
	good := encode(t, full())
	var http []byte
	http = protowire.AppendString(protowire.AppendTag(http, 4, protowire.BytesType), "/")
	pair := func(k, v string) []byte { return append(nest([]byte(k), 1), nest([]byte(v), 2)...) }
	for name, data := range map[string][]byte{
		"truncated":               good[:len(good)-1],
		"garbage after it":        append(slices.Clip(good), 7),
		"two of it":               append(slices.Clip(good), good...),
		"two requests":            nest(append(nest(nil, 4), nest(nil, 4)...), 1),
		"two paths":               nest(append(http, http...), 1, 4, 2),
		"two header maps":         nest(append(nest(nil, 13), nest(nil, 13)...), 1, 4, 2),
		"two values of a header":  nest(append(pair("a", "b"), nest([]byte("c"), 3)...), 1, 4, 2, 13, 1),
		"header value twice":      nest(append(pair("a", "b"), nest([]byte("c"), 2)...), 1, 4, 2, 13, 1),
		"two addresses":           nest(append(nest(nil, 1), nest(nil, 2)...), 1, 1, 1),
		"two principals":          nest(append(nest([]byte("a"), 4), nest([]byte("b"), 4)...), 1, 1),
		"two extensions":          nest(append(nest(pair("route", "a"), 10), nest(pair("route", "b"), 10)...), 1),
		"path is not UTF-8":       nest([]byte{0xff}, 1, 4, 2, 4),
		"header name is not":      nest([]byte{0xff}, 1, 4, 2, 13, 1, 1),
		"principal is not":        nest([]byte{0xff}, 1, 1, 4),
		"label is not":            nest([]byte{0xff}, 1, 1, 3, 1),
		"server name is not":      nest([]byte{0xff}, 1, 12, 1),
		"path is a number":        nest(protowire.AppendVarint(protowire.AppendTag(nil, 4, protowire.VarintType), 1), 1, 4, 2),
		"attributes are a number": protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1),
		"number of a field":       []byte("\x80\xff\xb3\xb30\xb3\xb30"),
		"time is malformed":       nest([]byte{8}, 1, 4, 1),
		"metadata is malformed":   nest([]byte{10}, 1, 11),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := wire.ParseRequest(data)
			if r.Fault == nil {
				t.Error("accepted")
			}
			if _, err := r.Message(); err == nil {
				t.Error("has a message")
			}
		})
	}
}

// FuzzParseRequest compares with the protobuf library: what is accepted means
// the same to it, and what is refused has two readings or is malformed to it.
func FuzzParseRequest(f *testing.F) {
	f.Add(encode(f, full()))
	f.Add([]byte{})
	for _, number := range []protowire.Number{1, 2, 3, 4, 10, 12, 13} {
		f.Add(nest([]byte("x"), 1, 4, 2, number))
		f.Add(nest([]byte("x"), 1, number, 1))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := wire.ParseRequest(data)
		m := &authv3.CheckRequest{}
		err := proto.Unmarshal(data, m)
		if r.Fault == nil {
			if err != nil {
				t.Fatalf("accepted, but: %v", err)
			}
			if diff := difference(r, m); diff != "" {
				t.Fatalf("(-protobuf +wire):\n%s", diff)
			}
			return
		}
		// Written once more it has each field once, and those that are known.
		m = &authv3.CheckRequest{}
		if err != nil || (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, m) != nil {
			return
		}
		for _, h := range m.GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
			if h.GetValue() != "" && len(h.GetRawValue()) > 0 {
				return
			}
		}
		again := wire.ParseRequest(encode(t, m))
		if again.Fault != nil {
			t.Fatalf("refused: %v: %v", again.Fault, m)
		}
		if diff := difference(again, m); diff != "" {
			t.Fatalf("(-protobuf +wire):\n%s", diff)
		}
	})
}

var long = strings.Repeat("long ", 1000)

func TestResponse(t *testing.T) {
	t.Parallel()
	option := func(name, value string) *corev3.HeaderValueOption {
		return &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: name, Value: value},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}
	}
	denied := &status.Status{Code: int32(codes.PermissionDenied)}
	for name, row := range map[string]struct {
		response wire.Response
		want     *authv3.CheckResponse
	}{
		"nothing": {wire.Response{}, &authv3.CheckResponse{
			Status: denied,
			HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
				Status: &typev3.HttpStatus{Code: 503},
			}},
		}},
		"allowed": {wire.Response{Allowed: true}, &authv3.CheckResponse{
			Status:       &status.Status{},
			HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}},
		}},
		"allowed, all": {
			wire.Response{
				Allowed: true, Set: []wire.Pair{{"txn-token", long}, {"x", ""}}, Remove: []string{"authorization", "x-id-token"},
				Metadata: []wire.Pair{{"user", "alice"}, {"tenant", ""}, {"long", long}},
			},
			&authv3.CheckResponse{
				Status: &status.Status{},
				HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
					Headers:         []*corev3.HeaderValueOption{option("txn-token", long), option("x", "")},
					HeadersToRemove: []string{"authorization", "x-id-token"},
				}},
				DynamicMetadata: &structpb.Struct{Fields: map[string]*structpb.Value{
					"user": structpb.NewStringValue("alice"), "tenant": structpb.NewStringValue(""), "long": structpb.NewStringValue(long),
				}},
			},
		},
		"denied": {
			wire.Response{Status: 401, Set: []wire.Pair{{"www-authenticate", "Bearer"}}, Body: "no", Metadata: []wire.Pair{{"reason", "x"}}},
			&authv3.CheckResponse{
				Status: denied,
				HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
					Status: &typev3.HttpStatus{Code: 401}, Headers: []*corev3.HeaderValueOption{option("www-authenticate", "Bearer")}, Body: "no",
				}},
				DynamicMetadata: &structpb.Struct{Fields: map[string]*structpb.Value{"reason": structpb.NewStringValue("x")}},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := &authv3.CheckResponse{}
			if err := proto.Unmarshal(row.response.Append(nil), got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, got, protocmp.Transform()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// echo answers with the path of a request, or with a message of its own.
type echo struct{ message *authv3.CheckResponse }

func (e echo) Answer(_ context.Context, r *wire.Request) *wire.Response {
	if r.Fault != nil {
		return &wire.Response{Body: r.Fault.Error()}
	}
	told := wire.Pair{Name: "told", Value: fmt.Sprint(r.Source.Principal, r.Body, len(r.Headers), len(r.Merged), len(r.Extensions))}
	return &wire.Response{Status: 403, Body: r.Path, Set: []wire.Pair{told}, Message: e.message}
}

func serve(t *testing.T, c wire.Checker, more ...grpc.ServerOption) *grpc.ClientConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(append(wire.ServerOptions(), more...)...)
	wire.Register(server, c)
	healthpb.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestServer(t *testing.T) {
	t.Parallel()
	intercepted := 0
	conn := serve(t, echo{}, grpc.UnaryInterceptor(
		func(ctx context.Context, r any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if info.FullMethod == authv3.Authorization_Check_FullMethodName {
				intercepted++
			}
			return handler(ctx, r)
		}))
	got, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), full())
	if err != nil || got.GetDeniedResponse().GetBody() != "/orders?x=1" {
		t.Errorf("got %v, %v", got, err)
	}
	if intercepted != 1 {
		t.Errorf("intercepted %d times", intercepted)
	}
	// What else is served speaks as ever.
	health, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("got %v, %v", health, err)
	}
	// What is malformed is for the checker to refuse.
	var raw authv3.CheckResponse
	broken := &authv3.CheckRequest{}
	broken.ProtoReflect().SetUnknown(nest([]byte{0xff}, 1, 4, 2, 4))
	if err := conn.Invoke(t.Context(), authv3.Authorization_Check_FullMethodName, broken, &raw); err != nil ||
		raw.GetDeniedResponse().GetBody() == "" || raw.GetDeniedResponse().GetStatus().GetCode() != 503 {
		t.Errorf("got %v, %v", &raw, err)
	}
}

// Nothing of a request is left in the next.
func TestServerForgets(t *testing.T) {
	t.Parallel()
	client := authv3.NewAuthorizationClient(serve(t, echo{}))
	empty := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{}}
	for range 100 {
		if _, err := client.Check(t.Context(), full()); err != nil {
			t.Fatal(err)
		}
		got, err := client.Check(t.Context(), empty)
		if err != nil {
			t.Fatal(err)
		}
		denied := got.GetDeniedResponse()
		if told := denied.GetHeaders()[0].GetHeader().GetValue(); denied.GetBody() != "" || told != "0 0 0" {
			t.Fatalf("got %q, %q", denied.GetBody(), told)
		}
	}
}

func TestServerSendsMessages(t *testing.T) {
	t.Parallel()
	want := &authv3.CheckResponse{Status: &status.Status{Message: errors.ErrUnsupported.Error()}}
	got, err := authv3.NewAuthorizationClient(serve(t, echo{want})).Check(t.Context(), full())
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestMessageThatCannotBeSentRefuses(t *testing.T) {
	t.Parallel()
	broken := &authv3.CheckResponse{Status: &status.Status{Message: "\xff"}}
	got, err := authv3.NewAuthorizationClient(serve(t, echo{broken})).Check(t.Context(), full())
	if err != nil || got.GetDeniedResponse().GetStatus().GetCode() != typev3.StatusCode_ServiceUnavailable {
		t.Errorf("%v, %v", got, err)
	}
}

func BenchmarkParseRequest(b *testing.B) {
	m := full()
	m.Attributes.MetadataContext, m.Attributes.TlsSession = &corev3.Metadata{}, nil
	m.Attributes.Source.Labels = nil
	http := m.GetAttributes().GetRequest().GetHttp()
	http.Headers, http.Body, http.RawBody = nil, "", nil
	for range 8 {
		http.HeaderMap.Headers = append(http.GetHeaderMap().GetHeaders(), &corev3.HeaderValue{
			Key: "x-forwarded-for", RawValue: []byte("a value that is as long as most are"),
		})
	}
	data := encode(b, m)
	b.Run("wire", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if r := wire.ParseRequest(data); r.Fault != nil {
				b.Fatal(r.Fault)
			}
		}
	})
	b.Run("protobuf", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := proto.Unmarshal(data, &authv3.CheckRequest{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
