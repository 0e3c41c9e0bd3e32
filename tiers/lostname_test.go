package tiers

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLostNameChanges: of a file in use the name that it was known by is removed; what changes it through the other
// one, which nobody has to look up again, is committed all the same.
func TestLostNameChanges(t *testing.T) {
	for _, syncs := range []int{0, 1, 2} { // between the removal and the change
		v, cold := newVolume(t)
		f := write(t, v, v.Root(), "f", "one")
		d := mkdir(t, v, v.Root(), "d")
		_, err := v.Link(context.Background(), f, d, "g")
		must(t, err)
		v.mustSync(t)
		g, _, err := v.Lookup(context.Background(), d, "g")
		must(t, err)
		if g != f {
			t.Fatal("two inodes of one file")
		}
		must(t, v.Unlink(context.Background(), d, "g"))
		for range syncs {
			v.mustSync(t)
		}
		h, err := v.Open(context.Background(), f, unix.O_WRONLY, false)
		must(t, err)
		_, err = h.Write(context.Background(), []byte("two, and longer"), 0, false)
		must(t, err)
		h.Release()
		if st := v.Status(); st.AtRisk.Files == 0 || st.AtRisk.Seconds <= 0 {
			t.Errorf("%d syncs: at risk %+v", syncs, st.AtRisk)
		}
		v.mustSync(t)
		checkCommitted(t, v, cold, "f", f)
		mode := uint32(0600)
		_, err = v.Setattr(context.Background(), f, nil, &SetAttr{Mode: &mode})
		must(t, err)
		if rc := v.mustSync(t); !rc.New {
			t.Errorf("%d syncs: a chmod is not committed", syncs)
		}
		if rc := v.mustSync(t); rc.New {
			t.Errorf("%d syncs: a commit of nothing", syncs)
		}
		if !v.rootClean() {
			t.Errorf("%d syncs: nothing is clean any more", syncs)
		}
		must(t, v.Close())
	}
}
