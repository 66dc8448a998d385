package mesh

import "slices"

// gatewayTLS returns nil for a gateway that speaks in the clear.
func (s scope) gatewayTLS(form *gatewayForm) *GatewayTLS {
	if form.TLS == nil {
		if form.Profile != ProfilePrivate && !s.document.faulted("profile") {
			s.fault("tls", "is required by profile %s: write tls with the names of certificates, or {mode: off} if TLS ends in front of this gateway", form.Profile)
		}
		return nil
	}
	if form.TLS.Mode == "off" {
		for _, key := range []string{"certificates", "minVersion", "clientCertificates"} {
			if path := join("tls", key); s.document.written(path) {
				s.fault(path, "has no effect with mode: off: remove it, or remove that")
			}
		}
		return nil
	}
	if form.TLS.Certificates == nil {
		s.fault("tls.certificates", "is required with mode on: write the names of certificates, such as [shop] for shop.crt and shop.key")
	}
	return &GatewayTLS{
		Certificates: texts(form.TLS.Certificates),
		MinVersion:   form.TLS.MinVersion,
		Clients:      s.clientCertificates(form),
	}
}

func (s scope) clientCertificates(form *gatewayForm) *ClientCertificates {
	clients := form.TLS.ClientCertificates
	if clients == nil {
		return nil
	}
	if form.Profile == ProfilePublic && !s.document.faulted("profile") {
		s.fault("tls.clientCertificates", "is not for profile public, whose clients are anybody: remove it, or take semi-public or private")
	}
	return &ClientCertificates{
		Trust:    string(clients.Trust),
		Required: clients.Required,
		Names:    texts(clients.Names),
	}
}

// plaintext checks that what is said of connections in the clear fits to mtls.
func (s scope) plaintext(form *serviceForm) *Plaintext {
	switch {
	case form.Plaintext == nil && form.MTLS == MTLSPermissive:
		s.fault("plaintext", "is required with mtls: permissive: write {from: […]} with the networks whose connections in the clear are taken")
	case form.Plaintext != nil && form.MTLS == MTLSStrict:
		s.fault("plaintext", "is not taken with mtls: strict: remove it, or write mtls: permissive")
	}
	if form.Plaintext == nil {
		return nil
	}
	p := &Plaintext{Passport: form.Plaintext.Passport}
	for _, network := range form.Plaintext.From {
		p.From = append(p.From, network.Prefix)
	}
	return p
}

// callerPlaintext is who calls in the clear, among callers.
const callerPlaintext = "plaintext"

// plaintextCallers takes the word out of the callers that r has, and says what
// it means. With [MTLSOff] everybody calls in the clear. Who does so without a
// Passport has shown nothing.
func (s scope) plaintextCallers(path string, service *Service, r *Route) {
	r.Plaintext = service.Plaintext != nil && (service.MTLS == MTLSOff || slices.Contains(r.Callers, callerPlaintext))
	r.Callers = slices.DeleteFunc(slices.Clone(r.Callers), func(caller string) bool { return caller == callerPlaintext })
	if r.Plaintext && !service.Plaintext.Passport && r.Authentication.demands() {
		s.fault(path+".authenticate", "is demanded, here or by what it inherits, of callers in the clear, whose Passports are not taken: set plaintext.passport, write {anonymous: true} here, or let nobody call in the clear")
	}
}

// texts returns checked texts as plain ones; nil for nil.
func texts[T ~string](checked []T) []string {
	var plain []string
	for _, text := range checked {
		plain = append(plain, string(text))
	}
	return plain
}
