package policy

import "time"

// Identity returns what conditions read of in beside the request itself, by the
// same names, for policies in other languages: user, client, caller, tenant, params
// and passport; and of the request, as conditions read them, ip, host and path. What
// is missing is not in it. Times are nanoseconds since 1970.
func (in *Input) Identity() map[string]any {
	identity := map[string]any{}
	for name, object := range map[string]string{
		"user": userType.TypeName(), "client": clientType.TypeName(), "caller": callerType.TypeName(), "passport": passportType.TypeName(),
	} {
		value, _ := in.ResolveName(name)
		members := map[string]any{}
		for member, f := range fields[object] {
			v, err := f.GetFrom(value)
			if err != nil {
				continue
			}
			if t, ok := v.(time.Time); ok {
				v = t.UnixNano()
			}
			members[member] = v
		}
		if len(members) > 0 {
			identity[name] = members
		}
	}
	if in.Tenant != "" {
		identity["tenant"] = in.Tenant
	}
	for _, name := range []string{"ip", "host", "path"} {
		if v, err := fields[requestType.TypeName()][name].GetFrom(&in.Request); err == nil {
			identity[name] = v
		}
	}
	if in.Params != nil {
		identity["params"] = in.Params
	}
	return identity
}
