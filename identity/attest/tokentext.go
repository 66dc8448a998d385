package attest

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/chancery-mesh/chancery/identity"
)

const (
	tokenPrefix = "chj" // finds tokens where they should not be
	// idSize and secretSize are bytes; the id names a token and is no secret.
	idSize     = 8
	secretSize = idSize + 32
	// maxToken is room for more pins than there ever are.
	maxToken = 2048
)

// tokenText is what a join token says.
type tokenText struct {
	ID     string
	Secret []byte
	Pins   identity.Pins
}

// String returns "chj_<id>_<secret>_<pins>".
func (t tokenText) String() string {
	return strings.Join([]string{tokenPrefix, t.ID, hex.EncodeToString(t.Secret), t.Pins.String()}, "_")
}

// parseToken reads a token as a file has it, with a line's end.
func parseToken(text string) (tokenText, error) {
	text = strings.TrimSpace(text)
	parts := strings.Split(text, "_")
	if len(text) > maxToken || len(parts) != 4 || parts[0] != tokenPrefix || len(parts[1]) != 2*idSize {
		return tokenText{}, errors.New("it is no join token")
	}
	secret, err := hex.DecodeString(parts[2])
	if err != nil || len(secret) != secretSize-idSize {
		return tokenText{}, errors.New("it is no join token")
	}
	pins, err := identity.ParsePins(parts[3])
	if err != nil {
		return tokenText{}, err
	}
	return tokenText{ID: parts[1], Secret: secret, Pins: pins}, nil
}

// PinsOfToken returns what a join token says of the control plane's root.
func PinsOfToken(text string) (identity.Pins, error) {
	t, err := parseToken(text)
	if err != nil {
		return identity.Pins{}, fmt.Errorf("join token: %w; write the whole line that chancery token create printed", err)
	}
	return t.Pins, nil
}
