package provider

// Parts that are tested on their own.
var (
	PublicKeys   = publicKeys
	CheckKeysURL = checkKeysURL
)

// MaxRetry is the longest pause after a failure.
const MaxRetry = maxRetry
