# Written for the OPA-Envoy plugin: chancery authz runs it as it is.
package envoy.authz

import input.attributes.request.http

default allow := {
	"allowed": false,
	"http_status": 403,
	"headers": {"content-type": "application/json"},
	"body": "{\"error\": \"not for you\"}",
}

# Everybody may look.
allow := true if {
	http.method == "GET"
	input.parsed_path[0] == "orders"
	not input.parsed_query.details
}

# Clerks order, up to what their role may.
allow := response if {
	http.method == "POST"
	input.parsed_path == ["orders"]
	not input.truncated_body
	some role in data.roles[user]
	input.parsed_body.amount <= data.limits[role]
	response := {
		"allowed": true,
		"headers": {"x-user": user},
		"request_headers_to_remove": ["authorization"],
		"response_headers_to_add": {"x-decided-by": "rego"},
		"query_parameters_to_remove": ["debug"],
		"query_parameters_to_set": {"by": role},
		"dynamic_metadata": {"user": user},
	}
}

# Who it is, by Basic. Envoy or a gateway before it has checked the password.
user := name if {
	[scheme, encoded] := split(http.headers.authorization, " ")
	lower(scheme) == "basic"
	[name, _] := split(base64.decode(encoded), ":")
}
