package controlplane_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/controlplane"
)

func TestDebounce(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	lead, gap := controlplane.PushLead, controlplane.PushGap
	tests := map[string]struct {
		kicks []time.Duration
		want  []time.Duration
	}{
		"one alone leaves at the leading edge": {[]time.Duration{0}, []time.Duration{lead}},
		"what comes together leaves together":  {[]time.Duration{0, 3 * ms, 9 * ms}, []time.Duration{lead}},
		"quiet in between":                     {[]time.Duration{0, time.Second}, []time.Duration{lead, time.Second + lead}},
		"the next waits for the gap":           {[]time.Duration{0, 15 * ms}, []time.Duration{lead, lead + gap}},
		"however many come":                    {[]time.Duration{0, 15 * ms, 30 * ms, 45 * ms, 59 * ms}, []time.Duration{lead, lead + gap}},
		"one that comes as another leaves is not lost": {
			[]time.Duration{0, lead + 1}, []time.Duration{lead, lead + gap},
		},
	}
	if lead > 20*ms {
		t.Errorf("the leading edge waits %v", lead)
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				ctx, cancel := context.WithCancel(t.Context())
				kicks := make(chan struct{}, 1)
				var got []time.Duration
				go controlplane.Debounce(ctx, kicks, func() { got = append(got, time.Since(start)) })
				for _, at := range tt.kicks {
					time.Sleep(at - time.Since(start))
					select {
					case kicks <- struct{}{}:
					default:
					}
					synctest.Wait()
				}
				time.Sleep(time.Minute)
				cancel()
				synctest.Wait()
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("pushes (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestDebounceUnderConstantChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		kicks := make(chan struct{}, 1)
		pushes := 0
		go controlplane.Debounce(ctx, kicks, func() { pushes++ })
		for ctx.Err() == nil {
			select {
			case kicks <- struct{}{}:
			default:
			}
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		if want := int(10 * time.Second / controlplane.PushGap); pushes < want-2 || pushes > want {
			t.Errorf("%d pushes, want about %d", pushes, want)
		}
	})
}
