package tiers

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRiskBesideAnOpenFile: a file is open for writing while a commit reads its directory for the first time; what is
// created there afterwards is at risk.
func TestRiskBesideAnOpenFile(t *testing.T) {
	v, _ := newVolume(t)
	_, h, _, err := v.Create(context.Background(), v.Root(), "open", unix.O_WRONLY, 0o600, me)
	must(t, err)
	_, err = h.Write(context.Background(), []byte("one"), 0, false)
	must(t, err)
	v.mustSync(t)
	write(t, v, v.Root(), "new", "two")
	if st := v.Status(); st.AtRisk.Files == 0 || st.AtRisk.Seconds <= 0 {
		t.Errorf("at risk %+v", st.AtRisk)
	}
	h.Release()
	v.mustSync(t)
	if st := v.Status(); st.AtRisk.Files != 0 {
		t.Errorf("after the commit at risk: %+v", st.AtRisk)
	}
	must(t, v.Close())
}
