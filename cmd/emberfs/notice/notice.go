// Package notice learns that this machine is about to go away: from the cloud that it runs in, a file, a command, a
// signal, or the clock.
//
// A Board holds what each source says, and tells of the notice that matters most whenever that changes. The sources
// are watchers (watch.go): for AWS (aws.go), Google (gcp.go) and Azure (azure.go), each by the metadata server that is
// documented for it, and generic ones (generic.go). No watcher asks a metadata server on a machine that is not in its
// cloud unless it was told to (detect.go). A source that cannot be asked keeps what it said last: only an answer takes
// a notice back.
package notice

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Usual is how much time a notice leaves that does not say how much: what Google and Azure give; AWS gives more.
const Usual = 30 * time.Second

// Notice says that the machine goes away, or may. It is comparable.
type Notice struct {
	// What happens, in one word: terminate, stop, hibernate, rebalance (AWS); preempt, maintenance (Google); preempt,
	// terminate, reboot, redeploy (Azure); file, command, signal, expire.
	What   string
	Source string // who says so: aws, gcp, azure, file, command, signal, clock
	When   time.Time
	// Until is when the machine goes away; the zero value where it may not go away at all, as with a rebalance
	// recommendation.
	Until  time.Time
	Detail string // what the source said, for people; one line
	// Guessed says that the source gave no time, and Until is Usual after When, or after it gave none any more.
	Guessed bool
}

// Final reports whether the machine goes away. Otherwise the notice is only a warning.
func (n *Notice) Final() bool { return !n.Until.IsZero() }

// MarshalJSON writes the times in UTC, to the millisecond; until is null where there is none.
func (n Notice) MarshalJSON() ([]byte, error) {
	at := func(t time.Time) *string {
		if t.IsZero() {
			return nil
		}
		s := t.UTC().Format("2006-01-02T15:04:05.000Z07:00")
		return &s
	}
	return json.Marshal(struct {
		What    string  `json:"what"`
		Source  string  `json:"source"`
		When    *string `json:"when"`
		Until   *string `json:"until"`
		Guessed bool    `json:"guessed"`
		Detail  string  `json:"detail"`
	}{n.What, n.Source, at(n.When), at(n.Until), n.Guessed, n.Detail})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (n *Notice) UnmarshalJSON(data []byte) error {
	var in struct {
		What, Source, Detail string
		When, Until          *time.Time
		Guessed              bool
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	*n = Notice{What: in.What, Source: in.Source, Detail: in.Detail, Guessed: in.Guessed}
	if in.When != nil {
		n.When = *in.When
	}
	if in.Until != nil {
		n.Until = *in.Until
	}
	return nil
}

// same reports whether a notice says nothing new beside an earlier one of the same source. Servers round times.
func (n *Notice) same(before *Notice) bool {
	if n == nil || before == nil {
		return n == before
	}
	return n.What == before.What && n.Source == before.Source && n.Final() == before.Final() &&
		n.Until.Sub(before.Until).Abs() < time.Second
}

// overdue reports whether the time of n has passed so long ago that the machine is taken for one that stays.
func (n *Notice) overdue(now time.Time) bool { return n.Final() && !now.Before(n.Until.Add(Overdue)) }

// before reports whether n matters more than o: that the machine goes away matters more than that it may, the earlier
// time more than the later, and what is overdue least of all.
func (n *Notice) before(o *Notice, now time.Time) bool {
	switch {
	case o == nil:
		return true
	case n.overdue(now) != o.overdue(now):
		return o.overdue(now)
	case n.Final() != o.Final():
		return n.Final()
	case !n.Until.Equal(o.Until):
		return n.Until.Before(o.Until)
	}
	return n.When.Before(o.When)
}

// Board holds what each source says. Its methods are safe for concurrent use.
type Board struct {
	changed func(*Notice)
	now     func() time.Time

	mu       sync.Mutex
	slots    map[string]Notice
	problems map[string]string
	current  *Notice
}

// NewBoard returns a board without notices. It calls changed, one call at a time and in order, with the notice that
// matters most whenever that is another one or has another time, and with nil when there is none any more. changed must
// not call the board.
func NewBoard(changed func(*Notice)) *Board {
	return &Board{changed: changed, now: time.Now, slots: map[string]Notice{}, problems: map[string]string{}}
}

// Put says what a source has to say now, in a slot of its own; nil: nothing. When, where it is not set, is the time of
// the first notice of this kind in the slot. Where the source gave no time Guessed is set, and Until is Usual after
// that, or after the moment from which the source gives none any more.
func (b *Board) Put(slot string, n *Notice) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n == nil {
		delete(b.slots, slot)
	} else {
		x := *n
		old, known := b.slots[slot]
		known = known && old.What == x.What
		if x.When.IsZero() {
			if x.When = b.now(); known {
				x.When = old.When
			}
		}
		if x.Guessed {
			x.Until = x.When.Add(Usual)
			switch {
			case known && !old.Guessed && old.Final(): // it has begun: Azure gives no time then
				x.Until = b.now().Add(Usual)
			case known && old.When.Equal(x.When):
				x.Until = old.Until
			}
		}
		x.Detail = fmt.Sprintf("%.200s", strings.Join(strings.Fields(x.Detail), " "))
		b.slots[slot] = x
	}
	b.tell()
}

// Look finds out again which notice matters most: when one has become overdue another may.
func (b *Board) Look() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tell()
}

// tell tells of the notice that matters most, if that is news. b.mu is held.
func (b *Board) tell() {
	var best *Notice
	now := b.now()
	for _, name := range slices.Sorted(maps.Keys(b.slots)) {
		if x := b.slots[name]; x.before(best, now) {
			best = &x
		}
	}
	if !best.same(b.current) {
		b.current = best
		b.changed(best)
	}
}

// Current returns the notice that matters most, or nil.
func (b *Board) Current() *Notice {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.current
}

// Problems lists the sources that cannot be asked now, and why.
func (b *Board) Problems() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Values(b.problems))
}

// problem notes that a source cannot be asked, or with nil that it can, and reports whether that is news.
func (b *Board) problem(source string, err error) (news bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, had := b.problems[source]
	if err == nil {
		delete(b.problems, source)
		return had
	}
	b.problems[source] = "notice: " + source + " cannot be asked: " + strings.Join(strings.Fields(err.Error()), " ")
	return !had
}
