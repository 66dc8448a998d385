package introspection

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/chancery-mesh/chancery/identity"
)

// maxSecret bounds a client's secret, in bytes.
const maxSecret = 1024

// Secrets reads secrets from a directory: NAME is the first line of the file
// NAME.secret, which only its owner may be able to read. It is read whenever it
// is used, so a new one counts at once. Errors never quote it.
func Secrets(dir string) func(name string) (string, error) {
	return func(name string) (string, error) {
		switch {
		case dir == "":
			return "", fmt.Errorf("there is no directory with secret %q: name it with --secrets", name)
		case name == "" || name != filepath.Base(name):
			return "", fmt.Errorf("secret %q has no name for a file", name)
		}
		text, err := identity.ReadPrivate(filepath.Join(dir, name+".secret"))
		if err != nil {
			return "", fmt.Errorf("read secret: %w", err)
		}
		secret := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
		if err := checkSecret(secret); err != nil {
			return "", fmt.Errorf("secret %q %w", name, err)
		}
		return secret, nil
	}
}

// checkSecret wants what RFC 6749 (appendix A.2) calls one.
func checkSecret(secret string) error {
	switch {
	case secret == "":
		return errors.New("is empty")
	case len(secret) > maxSecret:
		return fmt.Errorf("is longer than %d bytes", maxSecret)
	case strings.ContainsFunc(secret, func(r rune) bool { return r < ' ' || r > '~' }):
		return errors.New("is not one line of printable ASCII")
	}
	return nil
}
