package fs

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseMounts(t *testing.T) {
	table, err := ParseMounts(strings.NewReader(
		`22 1 0:21 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /mnt/with\040space rw shared:5 master:1 - fuse.emberfs /srv/a\134b.git rw,user_id=0
31 30 0:41 / /mnt/over rw - tmpfs none rw
32 31 0:42 / /mnt/over rw - fuse.emberfs emberfs rw
broken line
33 22 0:43 / /last rw - proc proc rw`))
	if err != nil || len(table) != 5 {
		t.Fatalf("%d mounts: %+v, %v", len(table), table, err)
	}
	m, ok := MountAt(table, "/mnt/with space")
	if !ok || !m.Ours() || m.Source != `/srv/a\b.git` {
		t.Errorf("escaped: %+v", m)
	}
	if m, _ := MountAt(table, "/mnt/over"); !m.Ours() {
		t.Errorf("the topmost mount counts: %+v", m)
	}
	if _, ok := MountAt(table, "/mnt"); ok {
		t.Error("/mnt is none")
	}
}

func TestParseMount(t *testing.T) {
	rw := []string{"rw"}
	for line, want := range map[string]*MountEntry{
		`36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`: {"/mnt2", "ext3", "/dev/root", "98:0", 0,
			[]string{"rw", "noatime"}},
		`40 35 0:51 / /a\040b\134c rw - fuse.emberfs /srv/x\040y rw,user_id=7`: {`/a b\c`, "fuse.emberfs", "/srv/x y",
			"0:51", 7, rw},
		`40 35 0:51 / /mnt rw shared:1 master:2 - fuse.emberfs src rw,max=1`: {"/mnt", "fuse.emberfs", "src", "0:51", 0,
			rw},
		`40 35 0:51 / /mnt rw - tmpfs  rw`: {"/mnt", "tmpfs", "", "0:51", 0, rw},
		`40 35 0:51 /`:                     nil,
		``:                                 nil,
	} {
		got, ok := parseMount(line)
		if ok != (want != nil) || ok && !reflect.DeepEqual(got, *want) {
			t.Errorf("%q: %+v %v", line, got, ok)
		}
	}
}

func FuzzParseMount(f *testing.F) {
	f.Add(`30 22 0:40 / /mnt/with\040space rw shared:5 - fuse.emberfs a\134b rw`)
	f.Add(` - `)
	f.Add(`a b c d \04 e - \`)
	f.Fuzz(func(t *testing.T, line string) {
		m, ok := parseMount(line)
		if !ok && m.Path != "" {
			t.Fatalf("%q: refused, but %+v", line, m)
		}
	})
}
