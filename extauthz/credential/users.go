package credential

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/text/unicode/norm"

	"github.com/chancery-mesh/chancery/internal/jose"
)

// User is one who has a password.
type User struct {
	// Name is compared byte for byte. It has no colon (RFC 7617).
	Name string
	// Hash is of the password, argon2id or bcrypt: see [HashPassword].
	Hash     string
	Groups   []string
	Tenant   string
	Disabled bool
}

// Users are those of one document. They are immutable and safe for concurrent
// use. [Passwords] verifies them.
type Users struct {
	name   string
	byName map[string]*user
	// dummies cost what the users' hashes do, one for each user, in a fixed order.
	dummies []passwordHash
}

type user struct {
	// text is the hash as it was given.
	text     string
	hash     passwordHash
	disabled bool
	identity Identity
}

// NewUsers returns the users of the document that is called name, or all that is
// wrong with them.
func NewUsers(name string, list []User) (*Users, error) {
	u := &Users{name: name, byName: make(map[string]*user, len(list))}
	var errs []error
	for i := range list {
		if err := u.add(&list[i]); err != nil {
			errs = append(errs, fmt.Errorf("users %q: user %.64q: %w", name, list[i].Name, err))
		}
	}
	if len(list) == 0 {
		errs = append(errs, fmt.Errorf("users %q: none", name))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return u, nil
}

func (u *Users) add(given *User) error {
	hash, err := parsePasswordHash(given.Hash)
	switch {
	case !jose.IsIdentifier(given.Name) || slices.Contains([]byte(given.Name), ':'):
		return errors.New("name must be printable text without a colon")
	case !norm.NFC.IsNormalString(given.Name):
		return errors.New("name must be in Unicode's normalization form C, as browsers send it")
	case u.byName[given.Name] != nil:
		return errors.New("stands twice")
	case err != nil:
		return err
	}
	u.dummies = append(u.dummies, hash.dummy())
	u.byName[given.Name] = &user{
		text: given.Hash, hash: hash, disabled: given.Disabled,
		identity: Identity{Kind: KindBasic, Provider: u.name, User: given.Name, Groups: given.Groups, Tenant: given.Tenant},
	}
	return nil
}

// find returns the user of a name. One that is not known has a hash as well, and
// always the same: that of a user whom chance picks, so that what it costs tells
// nothing.
func (u *Users) find(name string, chance uint64) *user {
	if known := u.byName[name]; known != nil {
		return known
	}
	return &user{hash: u.dummies[chance%uint64(len(u.dummies))]}
}
