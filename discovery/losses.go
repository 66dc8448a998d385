package discovery

import (
	"slices"
	"time"
)

// lossWindow is how close together losses count as one.
const lossWindow = 10 * time.Second

// losses remembers how many instances vanished of late, believed or not.
type losses []loss

type loss struct {
	at time.Time
	// count vanished; gone of them were believed to be.
	count, gone int
}

// allow reports whether fresh instances, of total that are left, may go now,
// and remembers them either way. One alone always may: nothing could ever leave
// a tiny mesh otherwise.
func (l *losses) allow(now time.Time, fresh, total int) bool {
	*l = slices.DeleteFunc(*l, func(e loss) bool { return now.Sub(e.at) > lossWindow })
	vanished, population := fresh, total
	for _, e := range *l {
		vanished += e.count
		population += e.gone
	}
	ok := vanished == 1 || 2*vanished < population
	e := loss{at: now, count: fresh}
	if ok {
		e.gone = fresh
	}
	*l = append(*l, e)
	return ok
}
