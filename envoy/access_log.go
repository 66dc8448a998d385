package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// accessLogFields are what a request leaves behind. No query and no header that
// may carry a credential is among them; who it was for comes from the answer
// of ext_authz. The path is the one that the upstream saw.
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
	"caller":         "%DYNAMIC_METADATA(" + MetadataNamespace + ":caller)%",
	"reason":         "%DYNAMIC_METADATA(" + MetadataNamespace + ":reason)%",
}

// accessLog writes one JSON object for each request to standard output.
func accessLog(listener string) []*accesslogv3.AccessLog {
	fields := map[string]*structpb.Value{"listener": structpb.NewStringValue(listener)}
	for name, format := range accessLogFields {
		fields[name] = structpb.NewStringValue(format)
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
