package wire

import (
	"bytes"
	"errors"
	"testing"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// TestLink: all that the remote has comes without a word to its git.
func TestLink(t *testing.T) {
	dir, r := newRemote(t)
	git(t, dir, "config", "receive.unpackLimit", "1")
	v, b := newVolume(t), newVolume(t)
	id := v.commit("some text")
	check(t, r.push(t.Context(), one(cold.ID{}, id), v.pack))
	r.git = "/nowhere"
	release, err := r.Link(t.Context(), b.db, id)
	check(t, err)
	check(t, b.db.UpdateRef(mainRef, cold.ID{}, id))
	check(t, release())
	if data, err := b.db.Read(v.ids[2], odb.Blob, 100); err != nil || !bytes.Equal(data, []byte("some text")) {
		t.Errorf("read %q, %v", data, err)
	}
	if out := git(t, b.dir, "fsck", "--strict", "--full"); out != "" {
		t.Error(out)
	}
	if _, err := r.Link(t.Context(), newVolume(t).db, cold.ID{1}); !errors.Is(err, odb.ErrCannotLink) {
		t.Errorf("link without the tip: %v", err)
	}
}
