package tiers

import (
	"testing"

	"emberfs/tiers/warm"
)

// TestRestoreNotesVolume: volume.json names the volume together with the commit that was restored. If the daemon is
// killed right after that, the next one finds that state and repository are of the same volume.
func TestRestoreNotesVolume(t *testing.T) {
	cold := newMemCold()
	v := openTiered(t, t.TempDir(), cold)
	write(t, v, v.Root(), "a", "1")
	v.mustSync(t)
	must(t, v.Close())
	v = openTiered(t, t.TempDir(), cold)
	must(t, v.state.Update(func(s *warm.StateFile) { s.Volume = "made before the repository was known" }))
	head, err := cold.Head(t.Context())
	must(t, err)
	must(t, v.restoreWarm(t.Context(), head))
	s, err := warm.LoadState(v.cfg.State)
	must(t, err)
	if s.Head == "" || s.Volume != cold.VolumeID() {
		t.Errorf("volume.json has commit %q of volume %q", s.Head, s.Volume)
	}
	must(t, v.Close())
}
