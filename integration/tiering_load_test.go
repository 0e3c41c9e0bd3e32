//go:build slow

package integration

import (
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
)

// releasing runs `emberfs tier` in a loop until the returned function is called, which gives how many files left warm.
func releasing(v *volume) (stop func() int64) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if r := v.emberfs("tier", v.mnt); r.code != 0 {
				v.t.Errorf("%v", r)
				return
			}
		}
	})
	return func() int64 {
		close(done)
		wg.Wait()
		return v.status().Tiers.Warm.Released
	}
}

// TestReleaseUnderPrograms: git, SQLite in both journal modes and two compilers work while everything that they close
// leaves warm.
func TestReleaseUnderPrograms(t *testing.T) {
	t.Parallel()
	deadline(t, 6*time.Minute)
	v := newVolume(t, "v", withSource(newBareRepo(t, "remote.git", user{})),
		withOpts("prefetch=off", "warm_age=100ms", "tier_interval=100ms", "hot_age=100ms")).mount()
	stop := releasing(v)
	shell(t, v.mnt, `git clone -q --no-local `+env.module+` project
		cd project
		git checkout -q -b work
		for i in 1 2 3; do mkdir -p d$i; echo "line $i" >d$i/f; git add -A; git commit -qm "change $i"; done
		git checkout -q HEAD~2; git checkout -q work
		git gc -q --prune=now; git fsck --strict
		test -z "$(git status --porcelain)"`)
	for _, mode := range []string{"wal", "delete"} {
		shell(t, v.mnt, `sqlite3 `+mode+`.db "pragma journal_mode=`+mode+`; create table t(id integer primary key, v text);"
			for i in $(seq 1 40); do sqlite3 `+mode+`.db "insert into t(v) select hex(randomblob(200)) from t union all select 'first'; delete from t where id % 7 = $((i % 7)) and id > 2000;"; [ $i -lt 9 ] || sqlite3 `+mode+`.db "delete from t where id > 500;"; done
			test "$(sqlite3 `+mode+`.db 'pragma integrity_check;')" = ok`)
	}
	shell(t, v.mnt, `mkdir c; cd c
		for i in 1 2 3 4 5 6 7 8; do printf 'int f%d(void) { return %d; }\n' $i $i >f$i.c; done
		printf 'int f1(void); int f8(void); int main(void) { return f1() + f8() - 9; }\n' >main.c
		for round in 1 2 3; do for f in *.c; do gcc -c $f; done; gcc -o prog *.o; ./prog; rm -f *.o; done
		mkdir ../hello; cd ../hello; printf 'module hello\n' >go.mod; printf 'package main\n\nfunc main() { println("hello") }\n' >main.go
		GOCACHE=`+v.at("gocache")+` GOFLAGS=-mod=mod go build -o hello .; ./hello`)
	if n := stop(); n < 100 {
		t.Errorf("only %d files left warm meanwhile", n)
	}
	v.umount()
	fsck(t, v.source)
}

// TestReleaseUnderFio: what fio wrote, it finds again with every checksum right, although its files leave warm between
// the phases and whenever they are closed.
func TestReleaseUnderFio(t *testing.T) {
	deadline(t, 15*time.Minute)
	v := newVolume(t, "v", onlyByCommand(), withOpts("chunk_threshold=1MiB", "hot_age=100ms")).mount()
	stop := releasing(v)
	job := `--directory=. --nrfiles=8 --filesize=2m --openfiles=2 --verify=crc32c --verify_fatal=1 --randrepeat=1 --group_reporting --minimal --fallocate=none`
	for _, seed := range effort.Seeds(t, 2, 20) {
		shell(t, v.mnt, fmt.Sprintf(`mkdir s%d; cd s%d
			fio --name=a --rw=randwrite --bs=16k --ioengine=psync --size=16m --randseed=%d --do_verify=0 %s >/dev/null
			emberfs=%s; $emberfs tier %s >/dev/null
			fio --name=a --rw=randwrite --bs=16k --ioengine=psync --size=16m --randseed=%d --verify_only %s >/dev/null`,
			seed, seed, seed+1, job, env.bin, v.mnt, seed+1, job))
	}
	if n := stop(); n < 20 {
		t.Errorf("only %d files left warm meanwhile", n)
	}
	v.umount()
}

// TestReleaseUnderExerciser does random things to one file and holds each result to a copy in memory, as fsx does; the
// file leaves warm whenever it is closed for a moment.
func TestReleaseUnderExerciser(t *testing.T) {
	deadline(t, 8*time.Minute)
	for _, cache := range []string{"on", "off"} {
		t.Run("cache="+cache, func(t *testing.T) {
			t.Parallel()
			v := newVolume(t, "v", onlyByCommand(), withOpts("kernel_cache="+cache, "chunk_threshold=256KiB",
				"hot_age=100ms")).mount()
			stop := releasing(v)
			exercise(t, v.at("file"), rand.New(rand.NewSource(effort.Seed(t))),
				time.Now().Add(effort.Time(t, 6*time.Second, 2*time.Minute)))
			if n := stop(); n < 5 {
				t.Errorf("it left warm only %d times", n)
			}
			v.umount()
		})
	}
}

// exercise is one fsx.
func exercise(t *testing.T, path string, rnd *rand.Rand, until time.Time) {
	const most = 1 << 20
	var want []byte
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	check(t, err)
	defer func() { _ = f.Close() }()
	for op := 0; time.Now().Before(until) && !t.Failed(); op++ {
		off, n := rnd.Intn(most), 1+rnd.Intn(64<<10)
		switch rnd.Intn(9) {
		case 0, 1:
			p := make([]byte, n)
			rnd.Read(p)
			if _, err := f.WriteAt(p, int64(off)); err != nil {
				t.Fatalf("operation %d: write: %v", op, err)
			}
			want = grownBytes(want, off+n)
			copy(want[off:], p)
		case 2:
			check(t, f.Truncate(int64(off)))
			want = grownBytes(want, off)[:off]
		case 3:
			if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off),
				int64(n)); err != nil {
				t.Fatalf("operation %d: punch: %v", op, err)
			}
			if off < len(want) {
				clear(want[off:min(off+n, len(want))])
			}
		case 4:
			if off+n > len(want) {
				break
			}
			m, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			check(t, err)
			rnd.Read(m[off : off+n])
			copy(want[off:], m[off:off+n])
			check(t, unix.Msync(m, unix.MS_SYNC))
			check(t, unix.Munmap(m))
		case 5, 6: // closed for a moment: it may leave warm
			check(t, f.Close())
			if rnd.Intn(4) == 0 {
				time.Sleep(time.Duration(rnd.Intn(40)) * time.Millisecond)
			}
			f, err = os.OpenFile(path, os.O_RDWR, 0)
			check(t, err)
		default:
			p := make([]byte, n)
			k, _ := f.ReadAt(p, int64(off))
			if rest := want[min(off, len(want)):min(off+n, len(want))]; string(p[:k]) != string(rest) {
				t.Fatalf("operation %d: %d bytes at %d of %d are not what was written", op, k, off, len(want))
			}
		}
	}
	got, err := os.ReadFile(path)
	if check(t, err); string(got) != string(want) {
		t.Fatalf("in the end %d bytes, want %d, or others", len(got), len(want))
	}
}

// grownBytes is p with at least n bytes.
func grownBytes(p []byte, n int) []byte {
	if len(p) >= n {
		return p
	}
	return append(p, make([]byte, n-len(p))...)
}

// TestLazySizes: a directory of 100,000 files, 50,000 directories and 200 levels come to the next machine, are listed,
// read and removed. That takes three minutes; in the suite it is a tenth of the files and directories.
func TestLazySizes(t *testing.T) {
	t.Parallel()
	deadline(t, 8*time.Minute)
	files := effort.Count(t, 10_000, 100_000)
	dirs := files / 2
	v := newSession(t)
	check(t, os.Mkdir(v.at("wide"), 0o755))
	for i := range files {
		check(t, os.WriteFile(v.at(fmt.Sprintf("wide/%06d", i)), fmt.Append(nil, i), 0o644))
	}
	for i := range dirs {
		check(t, os.MkdirAll(v.at(fmt.Sprintf("many/%03d/%03d", i/250, i%250)), 0o755))
	}
	deep := "deep/" + strings.Repeat("d/", 200)
	check(t, os.MkdirAll(v.at(deep), 0o755))
	check(t, os.WriteFile(v.at(deep+"f"), []byte("at the bottom"), 0o644))
	two := nextMachine(t, v)
	wantFile(t, two.at(deep+"f"), "at the bottom", "the deepest file:")
	list, err := os.ReadDir(two.at("wide"))
	if err != nil || len(list) != files {
		t.Errorf("%d files, want %d, %v", len(list), files, err)
	}
	for i := 0; i < files; i += files / 100 {
		wantFile(t, two.at(fmt.Sprintf("wide/%06d", i)), fmt.Sprint(i), "file %d:", i)
	}
	n := 0
	check(t, filepath.WalkDir(two.at("many"), func(_ string, d fs.DirEntry, err error) error {
		n++
		return err
	}))
	if want := 1 + (dirs+249)/250 + dirs; n != want {
		t.Errorf("%d directories, want %d", n, want)
	}
	if rss := peakRSS(t, two.daemon()); rss > 160<<20 {
		t.Errorf("the daemon took %d MB", rss>>20)
	}
	two.fetchesNothing("rm -rf", func() { must(t, "/", "rm", "-rf", two.at("wide"), two.at("many"), two.at("deep")) })
	two.umount()
	fsck(t, two.source)
}
