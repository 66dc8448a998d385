package jose

// ParseJWS is Parse for any payload, as the public test vectors have it.
var ParseJWS = parseJWS
