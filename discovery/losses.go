package discovery

import (
	"maps"
	"time"
)

// lossWindow is how close together losses count as one.
const lossWindow = 10 * time.Second

// losses remembers which instances vanished of late and did not come back.
type losses map[lost]loss

type lost struct{ service, id string }

type loss struct {
	at time.Time
	// believed losses are not among the watched instances any more.
	believed bool
}

// allow reports whether fresh instances, of total that are watched, may go now,
// and remembers them either way. One alone always may: nothing could ever leave
// a tiny mesh otherwise.
func (l losses) allow(now time.Time, service string, fresh []Instance, total int) bool {
	maps.DeleteFunc(l, func(_ lost, e loss) bool { return now.Sub(e.at) > lossWindow })
	vanished, population := len(l)+len(fresh), total
	for _, e := range l {
		if e.believed {
			population++
		}
	}
	ok := vanished == 1 || 2*vanished < population
	for _, i := range fresh {
		l[lost{service, i.ID}] = loss{now, ok}
	}
	return ok
}

// found takes back the loss of an instance.
func (l losses) found(service, id string) { delete(l, lost{service, id}) }
