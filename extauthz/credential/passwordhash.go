package credential

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/text/unicode/norm"
)

// maxPassword bounds a password, in bytes.
const maxPassword = 1024

// IsPassword reports whether s can be a password: text without control
// characters (RFC 7617 section 2), and not too long. Passwords are compared byte
// for byte.
func IsPassword(s string) bool {
	return s != "" && len(s) <= maxPassword && utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
}

// HashPassword returns what documents keep of a password: argon2id in the PHC
// string format. What other devices may send in other bytes is refused: text
// that is not in Unicode's normalization form C.
func HashPassword(password string) (string, error) {
	if !IsPassword(password) || !norm.NFC.IsNormalString(password) {
		return "", fmt.Errorf("password must be text of 1 to %d bytes without control characters, in normalization form C", maxPassword)
	}
	h := argon2Hash{argon2Params: argon2Default, salt: make([]byte, 16)}
	_, _ = rand.Read(h.salt) // never fails
	h.sum = h.compute(password, 32)
	return h.String(), nil
}

// passwordHash is of one password.
type passwordHash interface {
	// matches takes as long for any password.
	matches(password string) bool
	// dummy takes as long as the hash, and matches none.
	dummy() passwordHash
}

// parsePasswordHash reads a hash in the PHC string format of argon2id, or in
// bcrypt's. Its parameters are bounded on both sides: a weak one protects nobody,
// an expensive one is a way to stop everything.
func parsePasswordHash(s string) (passwordHash, error) {
	if strings.HasPrefix(s, "$argon2id$") {
		return parseArgon2(s)
	}
	for _, prefix := range []string{"$2a$", "$2b$", "$2y$"} {
		if strings.HasPrefix(s, prefix) {
			return parseBcrypt(s)
		}
	}
	return nil, errors.New("password hash must be of argon2id or bcrypt: see chancery password")
}

// Bounds of argon2id: the least that OWASP recommends, in any of its proportions,
// up to RFC 9106's second recommendation.
const (
	argon2MinMemory, argon2MaxMemory = 7 << 10, 64 << 10 // KiB
	argon2MinWork, argon2MaxWork     = 35 << 10, 192 << 10
	argon2MaxThreads                 = 8
)

type argon2Params struct {
	memory, passes uint32
	threads        uint8
}

var argon2Default = argon2Params{memory: 19 << 10, passes: 2, threads: 1}

type argon2Hash struct {
	argon2Params
	salt, sum []byte
}

var phcEncoding = base64.RawStdEncoding.Strict()

func parseArgon2(s string) (*argon2Hash, error) {
	var h argon2Hash
	var version int
	parts := strings.Split(s, "$") // begins with an empty one
	if len(parts) != 6 {
		return nil, errors.New("argon2id hash must be $argon2id$v=19$m=…,t=…,p=…$SALT$HASH")
	}
	_, err1 := fmt.Sscanf(parts[2], "v=%d", &version)
	_, err2 := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.passes, &h.threads)
	var err3, err4 error
	h.salt, err3 = phcEncoding.DecodeString(parts[4])
	h.sum, err4 = phcEncoding.DecodeString(parts[5])
	switch {
	case errors.Join(err1, err2, err3, err4) != nil, h.String() != s:
		return nil, errors.New("argon2id hash must be $argon2id$v=19$m=…,t=…,p=…$SALT$HASH")
	case h.memory < argon2MinMemory || h.memory > argon2MaxMemory,
		h.work() < argon2MinWork || h.work() > argon2MaxWork,
		h.threads < 1 || h.threads > argon2MaxThreads:
		return nil, fmt.Errorf("argon2id hash: m must be %d to %d, m times t %d to %d, and p 1 to %d",
			argon2MinMemory, argon2MaxMemory, argon2MinWork, argon2MaxWork, argon2MaxThreads)
	case len(h.salt) < 8 || len(h.salt) > 64 || len(h.sum) < 16 || len(h.sum) > 64:
		return nil, errors.New("argon2id hash: salt must have 8 to 64 bytes, and hash 16 to 64")
	}
	return &h, nil
}

func (p argon2Params) work() uint64 { return uint64(p.memory) * uint64(p.passes) }

// String is the one way to write h.
func (h *argon2Hash) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.passes, h.threads,
		phcEncoding.EncodeToString(h.salt), phcEncoding.EncodeToString(h.sum))
}

func (h *argon2Hash) compute(password string, size int) []byte {
	return argon2.IDKey([]byte(password), h.salt, h.passes, h.memory, h.threads, uint32(size))
}

func (h *argon2Hash) matches(password string) bool {
	return subtle.ConstantTimeCompare(h.compute(password, len(h.sum)), h.sum) == 1
}

func (h *argon2Hash) dummy() passwordHash {
	return never{&argon2Hash{argon2Params: h.argon2Params, salt: make([]byte, len(h.salt)), sum: make([]byte, len(h.sum))}}
}

// bcryptHash with bcrypt's own parameters. It takes 72 bytes; what a password has
// more must not be ignored, as bcrypt itself does when it compares.
type bcryptHash struct{ hash []byte }

const (
	bcryptMinCost, bcryptMaxCost = 10, 13
	bcryptMaxPassword            = 72
)

func parseBcrypt(s string) (*bcryptHash, error) {
	cost, err := bcrypt.Cost([]byte(s))
	switch {
	case err != nil || len(s) != 60 || strings.Trim(s[7:], bcryptAlphabet) != "":
		return nil, errors.New("bcrypt hash must have 60 characters: $2b$COST$ with salt and hash")
	case cost < bcryptMinCost || cost > bcryptMaxCost:
		return nil, fmt.Errorf("bcrypt hash: cost must be %d to %d", bcryptMinCost, bcryptMaxCost)
	}
	return &bcryptHash{[]byte(s)}, nil
}

const bcryptAlphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

func (h *bcryptHash) matches(password string) bool {
	ok := bcrypt.CompareHashAndPassword(h.hash, []byte(password[:min(len(password), bcryptMaxPassword)])) == nil
	return ok && len(password) <= bcryptMaxPassword
}

func (h *bcryptHash) dummy() passwordHash { return never{h} }

// never matches, and takes as long as if it did.
type never struct{ passwordHash }

func (n never) matches(password string) bool {
	_ = n.passwordHash.matches(password)
	return false
}
