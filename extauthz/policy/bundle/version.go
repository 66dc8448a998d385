package bundle

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Version says how new a bundle is: by its revision, if that is a number, numbers
// with dots or a time (RFC 3339), and else by when its signature says that it
// was issued.
type Version struct {
	Revision string
	// IssuedAt is the claim "iat", in seconds since 1970; 0 if there is none.
	IssuedAt int64
}

// String returns what people know it by.
func (v Version) String() string {
	if v.Revision == "" && v.IssuedAt != 0 {
		return time.Unix(v.IssuedAt, 0).UTC().Format(time.RFC3339)
	}
	return v.Revision
}

// ErrNotComparable says that of two versions nobody can tell which is newer.
var ErrNotComparable = errors.New("versions cannot be compared")

// Compare returns -1, 0 or 1 as v is older than, as new as, or newer than o.
func (v Version) Compare(o Version) (int, error) {
	if a, ok := v.time(); ok {
		if b, ok := o.time(); ok {
			return a.Compare(b), nil
		}
	}
	if a, ok := v.numbers(); ok {
		if b, ok := o.numbers(); ok {
			return slices.Compare(a, b), nil
		}
	}
	if v.IssuedAt != 0 && o.IssuedAt != 0 {
		return time.Unix(v.IssuedAt, 0).Compare(time.Unix(o.IssuedAt, 0)), nil
	}
	return 0, ErrNotComparable
}

// ordered reports whether the version can be compared with others of its kind.
func (v Version) ordered() bool {
	_, err := v.Compare(v)
	return err == nil
}

func (v Version) time() (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, v.Revision)
	return t, err == nil
}

var numbers = regexp.MustCompile(`^v?[0-9]{1,18}(\.[0-9]{1,18})*$`)

func (v Version) numbers() ([]int64, bool) {
	if !numbers.MatchString(v.Revision) {
		return nil, false
	}
	var list []int64
	for text := range strings.SplitSeq(strings.TrimPrefix(v.Revision, "v"), ".") {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, false
		}
		list = append(list, n)
	}
	return list, true
}
