package discovery

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Reasons of held updates.
const (
	ReasonSilent   = "the registry does not answer"
	ReasonNoLeader = "the registry knows no leader"
	ReasonStale    = "the registry was too long without contact to its leader"
	ReasonFiltered = "the registry hides instances by its ACLs"
	ReasonBackward = "the registry's index went backwards"
	ReasonNoChange = "instances vanished without a change of the registry's index"
	ReasonMass     = "half of all instances vanished at once"
)

const (
	// maxLastContact is how old the word of a registry's leader may be.
	maxLastContact = 5 * time.Second
	defaultHoldFor = time.Hour
)

// Answer is what a registry said of one service, and what speaks for it.
type Answer struct {
	// Instances in any order.
	Instances []Instance
	// KnownLeader and LastContact say how sure the registry is of itself.
	KnownLeader bool
	LastContact time.Duration
	// Filtered says that ACLs hid some instances.
	Filtered bool
	// Index grows with every change of the service.
	Index uint64
}

// Doubt returns why the answer can prove no instance gone, whatever its index
// is, or "". It is worth asking again soon then.
func (a Answer) Doubt() string {
	switch {
	case !a.KnownLeader:
		return ReasonNoLeader
	case a.LastContact > maxLastContact:
		return ReasonStale
	case a.Filtered:
		return ReasonFiltered
	}
	return ""
}

// KeeperConfig of a [Keeper]. Every field has a default.
type KeeperConfig struct {
	// HoldFor is how long answers must lack instances before they are believed
	// although half of all vanished at once; default 1h.
	HoldFor time.Duration
	// Logger hears what is held and why, once per change; default none.
	Logger *slog.Logger
	// Registerer of the metrics; default none.
	Registerer prometheus.Registerer
}

// Keeper keeps the last good instances of every watched service and decides
// what to believe of each answer. Fleets were lost by believing an empty list
// that a registry gave while it changed its leader, so instances are dropped
// only on good evidence: a known leader, recent contact to it, nothing hidden
// by ACLs, an index that grew, and less than half of all watched instances gone
// within ten seconds. A single instance that leaves is always believed then. It
// is safe for concurrent use.
type Keeper struct {
	holdFor time.Duration
	log     *slog.Logger
	held    *prometheus.GaugeVec

	mu      sync.Mutex
	records map[string]*record
	losses  losses
}

// NewKeeper returns a Keeper that knows nothing.
func NewKeeper(c KeeperConfig) (*Keeper, error) {
	k := &Keeper{
		holdFor: cmp.Or(c.HoldFor, defaultHoldFor),
		log:     cmp.Or(c.Logger, slog.New(slog.DiscardHandler)),
		held: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "chancery_discovery_held",
			Help: "Whether the registry's last answer on a service was not wholly believed (1) or was (0).",
		}, []string{"service"}),
		records: map[string]*record{},
		losses:  losses{},
	}
	if c.Registerer != nil {
		if err := c.Registerer.Register(k.held); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// Judge returns what to believe of a service after an answer, and whether that
// is news. Nothing is known after an empty first answer that is doubtful.
func (k *Keeper) Judge(service string, a Answer) (Update, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	r := k.record(service)
	doubt := r.doubt(a)
	if doubt == ReasonBackward {
		// Answers that follow are measured from here. This one would bring
		// instances back that had left.
		r.index = a.Index
	}
	switch {
	case !r.known() && len(a.Instances) == 0 && a.Doubt() != "":
		k.announce(r, service, a.Doubt(), nil)
		return Update{}, false
	case doubt == "":
		instances, reason := k.settle(r, service, a, now)
		return k.publish(r, service, instances, reason)
	case r.known():
		r.restart(now)
		return k.publish(r, service, r.update.Instances, doubt)
	default:
		// With nothing better at hand this serves some requests.
		return k.publish(r, service, sorted(a.Instances), doubt)
	}
}

// Fail returns what to believe of a service when err came instead of a usable
// answer, and whether that is news.
func (k *Keeper) Fail(service string, err error) (Update, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.record(service)
	k.announce(r, service, ReasonSilent, err)
	if !r.known() {
		return Update{}, false
	}
	r.restart(time.Now())
	return k.publish(r, service, r.update.Instances, ReasonSilent)
}

// Forget drops all that is known of a service.
func (k *Keeper) Forget(service string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.records, service)
	k.held.DeleteLabelValues(service)
}

func (k *Keeper) record(service string) *record {
	r := k.records[service]
	if r == nil {
		r = &record{absent: map[string]absence{}}
		k.records[service] = r
	}
	return r
}

// settle returns what is believed of an answer that can be believed, and why
// that is more than it says. What it adds or changes is a fact; what it lacks
// has to be judged.
func (k *Keeper) settle(r *record, service string, a Answer, now time.Time) ([]Instance, string) {
	advanced := a.Index > r.index
	if a.Filtered {
		r.restart(now)
	} else {
		r.index = a.Index
	}
	before := r.absent
	kept, fresh := k.missing(r, service, a.Instances, now)
	reason := ""
	if len(kept) > 0 {
		reason = ReasonMass
	}
	switch {
	case a.Filtered:
		kept, reason = append(kept, fresh...), ReasonFiltered
	case len(fresh) == 0:
	case !advanced:
		r.keep(fresh, before, absence{since: now})
		kept, reason = append(kept, fresh...), ReasonNoChange
	case !k.losses.allow(now, service, fresh, k.total()):
		r.keep(fresh, before, absence{since: now, mass: true})
		kept, reason = append(kept, fresh...), ReasonMass
	}
	return sorted(append(kept, a.Instances...)), reason
}

// missing returns the last good instances that an answer lacks: those that stay
// kept, and those to be judged now. Those which were held long enough are in
// neither.
func (k *Keeper) missing(r *record, service string, answer []Instance, now time.Time) (kept, fresh []Instance) {
	present := map[string]bool{}
	for _, i := range answer {
		present[i.ID] = true
		k.losses.found(service, i.ID)
	}
	before := r.absent
	r.absent = map[string]absence{}
	for _, i := range r.update.Instances {
		absent, was := before[i.ID]
		switch {
		case present[i.ID]:
		case was && now.Sub(absent.since) >= k.holdFor:
		case was && absent.mass:
			r.absent[i.ID] = absent
			kept = append(kept, i)
		default:
			fresh = append(fresh, i)
		}
	}
	return kept, fresh
}

// total counts the instances that are believed in.
func (k *Keeper) total() int {
	n := 0
	for _, r := range k.records {
		n += len(r.update.Instances)
	}
	return n
}

func (k *Keeper) publish(r *record, service string, instances []Instance, reason string) (Update, bool) {
	k.announce(r, service, reason, nil)
	u := Update{Service: service, Instances: instances, Held: reason != "", Reason: reason}
	news := !u.equal(r.update)
	r.update = u
	return u, news
}

// announce tells operators, once per change, whether a service is held.
func (k *Keeper) announce(r *record, service, reason string, err error) {
	if reason == r.reason {
		return
	}
	r.reason = reason
	if reason == "" {
		k.held.WithLabelValues(service).Set(0)
		k.log.Info("registry believed again", "service", service)
		return
	}
	k.held.WithLabelValues(service).Set(1)
	log := k.log.With("service", service, "reason", reason, "kept", len(r.update.Instances))
	if err != nil {
		log = log.With("err", err)
	}
	log.Warn("registry not believed")
}

func (u Update) equal(v Update) bool {
	return u.Service == v.Service && u.Reason == v.Reason && slices.Equal(u.Instances, v.Instances)
}

// sorted returns the instances by ID, each once.
func sorted(instances []Instance) []Instance {
	byID := map[string]Instance{}
	for _, i := range instances {
		byID[i.ID] = i
	}
	return slices.SortedFunc(maps.Values(byID), ByID)
}
