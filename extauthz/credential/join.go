package credential

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// users are the kinds that know a user, and not only a client.
const users = KindAccessToken | KindIDToken | KindBasic

// Join returns what two verified credentials of one request say together: id
// for the user, and other for what id does not tell. Where both name a client, a
// tenant, or a user, it must be the same: [Mismatch] otherwise. Of a credential
// that knows no user, one that does takes no more than the client: the tenant and
// the scopes of an API key are not its user's.
func (id *Identity) Join(other *Identity) (*Identity, error) {
	switch {
	case differ(id.Client, other.Client), differ(id.Tenant, other.Tenant):
		return nil, Mismatch
	case id.Kind&users != 0 && other.Kind&users != 0 && id.User != other.User:
		return nil, Mismatch
	}
	joined := *id
	joined.Kind |= other.Kind
	joined.Client = cmp.Or(id.Client, other.Client)
	if id.Kind&users == 0 || other.Kind&users != 0 {
		joined.lend(other)
	}
	// A login is told as a whole, by the ID token first: it is what it is for.
	if other.Kind == KindIDToken && (other.ACR != "" || other.AMR != nil || !other.AuthTime.IsZero()) {
		joined.ACR, joined.AMR, joined.AuthTime = other.ACR, other.AMR, other.AuthTime
	}
	if other.Kind == KindIDToken && other.IssuedAt.Before(id.IssuedAt) {
		joined.IssuedAt = other.IssuedAt
	}
	if other.ID != "" { // what revokes one of them revokes both
		joined.OtherIDs = append(slices.Clip(id.OtherIDs), other.ID)
	}
	joined.ValidUntil = earlier(id.ValidUntil, other.ValidUntil)
	return &joined, nil
}

// lend fills in what other knows of the user.
func (id *Identity) lend(other *Identity) {
	id.Tenant = cmp.Or(id.Tenant, other.Tenant)
	if id.Groups == nil {
		id.Groups = other.Groups
	}
	if id.Scopes == nil {
		id.Scopes = other.Scopes
	}
}

func differ(a, b string) bool { return a != "" && b != "" && a != b }

// earlier returns the one that comes first; zero never comes.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// ParseKind reads what [Kind.String] writes; words that are not known are left
// out.
func ParseKind(s string) Kind {
	var k Kind
	for word := range strings.SplitSeq(s, "+") {
		if i := slices.Index(kindNames[:], word); i >= 0 {
			k |= 1 << i
		}
	}
	return k
}

// CheckPasswordHash says what is wrong with the hash of a password.
func CheckPasswordHash(hash string) error {
	_, err := parsePasswordHash(hash)
	return err
}
