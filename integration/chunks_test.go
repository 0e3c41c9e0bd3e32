//go:build slow

package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// packBytes gives the sizes of a repository's packs by name.
func packBytes(t testing.TB, repo string) map[string]int64 {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(repo, "objects/pack/*.pack"))
	check(t, err)
	sizes := make(map[string]int64)
	for _, p := range packs {
		fi, err := os.Stat(p)
		check(t, err)
		sizes[p] = fi.Size()
	}
	return sizes
}

// committed syncs and gives the bytes of the packs that it made.
func (v *volume) committed() int64 {
	v.t.Helper()
	before := packBytes(v.t, v.cold())
	v.sync()
	var sum int64
	for p, n := range packBytes(v.t, v.cold()) {
		if before[p] == 0 {
			sum += n
		}
	}
	return sum
}

// randomFile writes a file that does not shrink.
func randomFile(t testing.TB, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	check(t, err)
	defer f.Close()
	r := rand.NewChaCha8([32]byte{1})
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(buf)) {
		_, _ = r.Read(buf)
		_, err := f.Write(buf)
		check(t, err)
	}
}

// TestBigFileSmallChange: 4 KiB changed in 200 MB make a small commit, and the next machine has the same file.
func TestBigFileSmallChange(t *testing.T) {
	deadline(t, 5*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo)).mount()
	big := v.at("big")
	randomFile(t, big, 200<<20)
	v.sync()
	f, err := os.OpenFile(big, os.O_RDWR, 0)
	check(t, err)
	_, err = f.WriteAt([]byte(strings.Repeat("changed\n", 512)), 77<<20+123)
	check(t, err)
	check(t, f.Close())
	start := time.Now()
	n := v.committed()
	t.Logf("the commit is %d bytes and took %v", n, time.Since(start).Round(time.Millisecond))
	if n == 0 || n > 600_000 {
		t.Errorf("the pack of the change has %d bytes", n)
	}
	sum := must(t, v.mnt, "sha256sum", "big")
	v.umount()
	fsck(t, repo)
	if got := shell(t, "/", "git -C "+repo+
		" archive main big | tar -xO --wildcards 'big/0*' | sha256sum"); strings.Fields(got)[0] != strings.Fields(
		sum)[0] {
		t.Errorf("cat of the chunks gives %s, want %s", got, sum)
	}
	next := newVolume(t, "next", withSource(repo)).mount()
	equal(t, must(t, next.mnt, "sha256sum", "big"), sum, "the next machine has")
	next.umount()
}

// TestDatabaseSmallCommits: 100 updates at random in a 30 MB database are a small commit.
func TestDatabaseSmallCommits(t *testing.T) {
	deadline(t, 5*time.Minute)
	lookPath(t, "sqlite3")
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo)).mount()
	db := v.at("db")
	must(t, v.mnt, "sqlite3", db, `CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB);
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<10000) INSERT INTO t SELECT i, randomblob(3000) FROM n;`)
	fi, err := os.Stat(db)
	check(t, err)
	first := v.committed()
	var sql strings.Builder
	sql.WriteString("BEGIN;")
	for range 100 {
		fmt.Fprintf(&sql, "UPDATE t SET b=randomblob(3000) WHERE a=%d;", 1+rand.IntN(10000))
	}
	sql.WriteString("COMMIT;")
	must(t, v.mnt, "sqlite3", db, sql.String())
	n := v.committed()
	t.Logf("database of %d bytes: first commit %d, 100 updates %d", fi.Size(), first, n)
	// At most 100 rows, each of them in one or two chunks of 64 KiB, of the 600 that there are.
	if n == 0 || n > 200*66<<10 || n > first/2 {
		t.Errorf("100 updates make a commit of %d bytes", n)
	}
	dump := shell(t, v.mnt, "sqlite3 db .dump | sha256sum")
	v.umount()
	next := newVolume(t, "next", withSource(repo)).mount()
	equal(t, strings.TrimSpace(must(t, next.mnt, "sqlite3", next.at("db"), "PRAGMA integrity_check")), "ok",
		"integrity_check says")
	if got := shell(t, next.mnt, "sqlite3 db .dump | sha256sum"); got != dump {
		t.Error("the next machine has another database")
	}
	next.umount()
}

// TestSparseTerabyte: a file of 1 TB that holds 3 MB is committed and comes back in seconds, with its holes.
func TestSparseTerabyte(t *testing.T) {
	deadline(t, 3*time.Minute)
	const size, part = int64(1) << 40, 1 << 20
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo)).mount()
	f, err := os.Create(v.at("sparse"))
	check(t, err)
	check(t, f.Truncate(size))
	data := make([]byte, part)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(data)
	offsets := []int64{0, size/2 + 12345, size - part}
	for _, off := range offsets {
		_, err := f.WriteAt(data, off)
		check(t, err)
	}
	check(t, f.Close())
	start := time.Now()
	n := v.committed()
	took := time.Since(start)
	if n > 20<<20 || took > time.Minute {
		t.Errorf("the commit has %d bytes and took %v", n, took)
	}
	v.umount()
	next := newVolume(t, "next", withSource(repo))
	start = time.Now()
	next.mount()
	t.Logf("committed in %v as %d bytes, back in %v", took.Round(time.Millisecond), n,
		time.Since(start).Round(time.Millisecond))
	if back := time.Since(start); back > time.Minute {
		t.Errorf("it took %v to come back", back)
	}
	var st unix.Stat_t
	check(t, unix.Stat(next.at("sparse"), &st))
	if st.Size != size || st.Blocks*512 > 32<<20 {
		t.Errorf("%d bytes in %d blocks", st.Size, st.Blocks)
	}
	g, err := os.Open(next.at("sparse"))
	check(t, err)
	defer g.Close()
	got := make([]byte, part)
	for _, off := range offsets {
		_, err := g.ReadAt(got, off)
		check(t, err)
		if string(got) != string(data) {
			t.Errorf("the data at %d differ", off)
		}
	}
	_, err = g.ReadAt(got, size/4)
	check(t, err)
	if strings.Trim(string(got), "\x00") != "" {
		t.Error("a hole has data")
	}
	check(t, g.Close())
	next.umount()
}
