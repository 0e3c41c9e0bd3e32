package tiers

import (
	"context"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/warm"
)

// TestLookupBesideReturn: a lookup that saw warm's file while its bytes were coming back, and that is answered when
// they are there, shows none of it: the kernel keeps the answer for long.
func TestLookupBesideReturn(t *testing.T) {
	var during func()
	v := openTiered(t, t.TempDir(), newMemCold(), func(c *Config) {
		c.Fail = func(s string) error {
			if s == "return.durable" && during != nil {
				during()
			}
			return nil
		}
	})
	f := write(t, v, v.root, "f", strings.Repeat("text", 5000))
	v.mustSync(t)
	mustTier(t, v)
	before := mustAttr(t, v, f)
	time.Sleep(20 * time.Millisecond)
	moves := v.nameChanges.Load()
	var st unix.Statx_t
	during = func() { must(t, v.statNode(f, &st)) }
	must(t, v.recall(t.Context(), f))
	fd, err := v.dirFD(v.root)
	must(t, err)
	defer v.unpin(v.root)
	same, isNew := v.intern(&st)
	if isNew {
		v.loadRecord(same, warm.ByName(fd, "f"), &st)
	}
	if _, a, err := v.adopt(v.root, fd, "f", &st, moves, same, isNew); err != nil || a != before {
		t.Fatalf("stat shows: %+v, before %+v, %v", a, before, err)
	}
	// The same with a mode that was changed meanwhile: an old one must not come back to life.
	must(t, v.statNode(f, &st))
	_, err = v.Setattr(context.Background(), f, nil, &SetAttr{Mode: new(uint32(0600))})
	must(t, err)
	same, isNew = v.intern(&st)
	if isNew {
		v.loadRecord(same, warm.ByName(fd, "f"), &st)
	}
	if _, a, err := v.adopt(v.root, fd, "f", &st, moves, same, isNew); err != nil || a.Mode&07777 != 0600 {
		t.Fatalf("mode %o, %v", a.Mode, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.mode&07777 != 0600 {
		t.Fatalf("remembers mode %o", f.mu.mode)
	}
}
