package wire

import (
	"encoding/binary"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/backup/odb"
)

// TestEndlessPack: a pack that never ends is given up before the disk is full, and nothing of it stays.
func TestEndlessPack(t *testing.T) {
	small := t.TempDir()
	check(t, unix.Mount("tmpfs", small, "tmpfs", 0, "size=20m"))
	t.Cleanup(func() { check(t, unix.Unmount(small, unix.MNT_DETACH)) })
	dir := filepath.Join(small, "cold.git")
	check(t, odb.Init(dir, "main"))
	db, err := odb.Open(dir, odb.Options{})
	check(t, err)
	defer db.Close()
	v := newVolume(t)
	v.commit("x")
	head := "PACK\x00\x00\x00\x02\x00\x00\x00\x01" + string(packEntry(blobEntry, 1<<50, nil, nil))
	head = head[:len(head)-len(packEntry(blobEntry, 0, nil, nil))+1] // without the compressed bytes
	block := binary.LittleEndian.AppendUint16([]byte{0}, 60_000)
	block = append(binary.LittleEndian.AppendUint16(block, ^uint16(60_000)), make([]byte, 60_000)...)
	full := func(w io.Writer) error {
		_, err := io.WriteString(w, pkt("packfile\n")+pkt("\x01"+head+"\x78\x01"))
		for err == nil {
			var st unix.Statfs_t
			if err = unix.Statfs(small, &st); err == nil && st.Bavail*100 < st.Blocks {
				t.Error("the disk is full")
			}
			if err == nil {
				_, err = io.WriteString(w, pkt("\x01"+string(block)))
			}
		}
		return err
	}
	r := &Remote{path: "fake", net: fakeDialer{script{say(introduce2()), say(heads(v.tip, mainRef)), full}}}
	before := objects(t, dir)
	_, _, err = r.Fetch(t.Context(), db, mainRef, nil)
	if !errors.Is(err, odb.ErrTooLarge) || !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "no room") {
		t.Error(err)
	}
	if after := objects(t, dir); after != before {
		t.Errorf("left over: %s", after)
	}
}

// TestRoom: a share of the disk is left to others.
func TestRoom(t *testing.T) {
	most, err := room(t.TempDir())
	var st unix.Statfs_t
	check(t, errors.Join(err, unix.Statfs(t.TempDir(), &st)))
	if most <= 0 || most >= int64(st.Bavail)*st.Bsize {
		t.Errorf("%d of %d", most, int64(st.Bavail)*st.Bsize)
	}
	if _, err := room("/nonexistent"); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
}
