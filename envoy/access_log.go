package envoy

import (
	"cmp"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/chancery-mesh/chancery/mesh"
)

// accessLogFields are what a request leaves behind. No query and no header that
// may carry a credential is among them; who it was for comes from the answer
// of ext_authz, as does the decision's ID, which leads to why it was made. The
// path is the one that the upstream saw.
var accessLogFields = map[string]string{
	"time":           "%START_TIME%",
	"request_id":     "%REQ(X-REQUEST-ID)%",
	"protocol":       "%PROTOCOL%",
	"method":         "%REQ(:METHOD)%",
	"authority":      "%REQ(:AUTHORITY)%",
	"path":           "%PATH(NQ:PATH)%",
	"route":          "%ROUTE_NAME%",
	"status":         "%RESPONSE_CODE%",
	"details":        "%RESPONSE_CODE_DETAILS%",
	"flags":          "%RESPONSE_FLAGS%",
	"duration_ms":    "%DURATION%",
	"bytes_received": "%BYTES_RECEIVED%",
	"bytes_sent":     "%BYTES_SENT%",
	"peer":           "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
	"peer_id":        "%DOWNSTREAM_PEER_URI_SAN%",
	"cluster":        "%UPSTREAM_CLUSTER%",
	"upstream":       "%UPSTREAM_HOST%",
	"attempts":       "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
	"user":           "%DYNAMIC_METADATA(" + MetadataNamespace + ":user)%",
	"tenant":         "%DYNAMIC_METADATA(" + MetadataNamespace + ":tenant)%",
	"client":         "%DYNAMIC_METADATA(" + MetadataNamespace + ":client)%",
	"plan":           "%DYNAMIC_METADATA(" + MetadataNamespace + ":plan)%",
	"decision":       "%DYNAMIC_METADATA(" + MetadataNamespace + ":decision)%",
	"caller":         "%DYNAMIC_METADATA(" + MetadataNamespace + ":caller)%",
	"reason":         "%DYNAMIC_METADATA(" + MetadataNamespace + ":reason)%",
}

// accessLog writes one JSON object for each request to standard output, without
// what the decision log does not tell as it is either.
func accessLog(listener string, redact mesh.Redaction) []*accesslogv3.AccessLog {
	fields := map[string]*structpb.Value{"listener": structpb.NewStringValue(listener)}
	hidden := map[string]string{
		"user": redact.User, "tenant": redact.Tenant, "client": redact.Client, "path": redact.Path,
	}
	for name, format := range accessLogFields {
		if cmp.Or(hidden[name], "keep") == "keep" {
			fields[name] = structpb.NewStringValue(format)
		}
	}
	return []*accesslogv3.AccessLog{{
		Name: "envoy.access_loggers.stdout",
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: typed(&streamv3.StdoutAccessLog{
			AccessLogFormat: &streamv3.StdoutAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
				Format: &corev3.SubstitutionFormatString_JsonFormat{
					JsonFormat: &structpb.Struct{Fields: fields},
				},
			}},
		})},
	}}
}
