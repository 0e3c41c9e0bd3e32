//go:build slow

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
)

// nextMachine unmounts a volume and mounts its repository in a second state directory.
func nextMachine(t *testing.T, one *volume) *volume {
	t.Helper()
	one.umount()
	two := newVolume(t, "two", withSource(one.source)).mount()
	return two
}

func newSession(t *testing.T) *volume {
	t.Helper()
	return newVolume(t, "one", withSource(newBareRepo(t, "remote.git", user{}))).mount()
}

// TestProgramGit: clone, commit, branch, gc, fsck; after the restore the work tree is clean and the history sound.
func TestProgramGit(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	v := newSession(t)
	shell(t, v.mnt, `git clone -q --no-local `+env.module+` project
		cd project
		git checkout -q -b work
		for i in 1 2 3 4 5; do mkdir -p d$i; echo "line $i" >d$i/f; git add -A; git commit -qm "change $i"; done
		git tag v1
		git mv d1 moved; git rm -q d2/f; git commit -qm move
		echo staged >staged; git add staged; echo dirty >>staged; echo new >untracked
		git stash list; git gc -q --prune=now; git fsck --strict
		git worktree add -q ../wt v1`)
	status := must(t, v.at("project"), "git", "status", "--porcelain")
	head := must(t, v.at("project"), "git", "rev-parse", "HEAD")
	two := nextMachine(t, v)
	must(t, two.at("project"), "git", "fsck", "--strict")
	if got := must(t, two.at("project"), "git", "status", "--porcelain"); got != status ||
		status != "AM staged\n?? untracked\n" {
		t.Errorf("git status after the restore:\n%swant\n%s", got, status)
	}
	equal(t, must(t, two.at("project"), "git", "rev-parse", "HEAD"), head, "HEAD is")
	shell(t, two.at("project"), `git commit -qam after; git log --oneline | head -3; git fsck --strict`)
	two.umount()
}

// TestProgramGoBuild builds a program of this project, and the libraries that it needs, in the mount, and runs what
// came out.
func TestProgramGoBuild(t *testing.T) {
	t.Parallel()
	deadline(t, 8*time.Minute)
	v := newSession(t)
	shell(t, env.module, `mkdir -p `+v.at("src/integration")+`; cp -r go.mod go.sum cmd fs tiers backup `+v.at("src")+
		`; cp -r integration/blocklog `+v.at("src/integration"))
	buildProject(t, v.at("src"), v.mnt)
	buildProject(t, v.at("src"), v.mnt) // all is in the cache now
	v.umount()
}

// buildProject builds a program from a copy of the project's source: emberfs in the long form, in the suite one that
// needs a third of its libraries. What the build makes, its cache included, is in dir.
func buildProject(t *testing.T, source, dir string) {
	t.Helper()
	program, says := "./integration/blocklog", "usage: blocklog"
	if effort.Soaking() {
		program, says = "./cmd/emberfs", "emberfs mounts a volume"
	}
	to := filepath.Join(dir, "program")
	command{args: []string{"go", "build", "-buildvcs=false", "-o", to, program}, dir: source, limit: 6 * time.Minute,
		env: []string{"GOCACHE=" + filepath.Join(dir, "cache"), "GOTMPDIR=" + mkdir(t, filepath.Join(dir, "tmp"),
			user{}),
			"GOMODCACHE=" + strings.TrimSpace(must(t, env.module, "go", "env", "GOMODCACHE"))}}.must(t)
	if r := (command{args: []string{to}}).run(t); !strings.Contains(strings.ToLower(r.stdout+r.stderr), says) {
		t.Errorf("the program built in the mount: want %q\n%v", says, r)
	}
}

// TestProgramSQLite: a rollback and a WAL database under load are whole, in the mount, after a kill of the client,
// after a restore of a commit taken in the middle of writing.
func TestProgramSQLite(t *testing.T) {
	deadline(t, 3*time.Minute)
	lookPath(t, "sqlite3")
	for _, mode := range []string{"delete", "wal"} {
		t.Run(mode, func(t *testing.T) {
			v := newSession(t)
			db := v.at("db")
			must(t, v.mnt, "sqlite3", db, "PRAGMA journal_mode="+mode+
				"; CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB); CREATE TABLE sums(n INT);")
			cmd := command{args: []string{"sh", "-c",
				`i=0; while :; do i=$((i+1)); echo "BEGIN; INSERT INTO t(b) VALUES(randomblob(3000)); INSERT INTO sums VALUES($i); COMMIT;"; done | sqlite3 -cmd ".timeout 5000" ` + db}}.prepare(t.Context())
			check(t, cmd.Start())
			rows := func(db string) int {
				n, _ := strconv.Atoi(strings.TrimSpace(must(t, "/", "sqlite3", "-cmd", ".timeout 5000", db,
					"SELECT count(*) FROM t")))
				return n
			}
			if !waitFor(30*time.Second, func() bool { return rows(db) > 50 }) {
				t.Errorf("no progress")
			}
			before := rows(db)
			v.sync() // in the middle of writing
			after := rows(db)
			check(t, unix.Kill(-cmd.Process.Pid, unix.SIGKILL))
			_ = cmd.Wait()
			sound(t, db)
			restored := filepath.Join(testDir(t), "restored")
			v.must("restore", "--from", v.source, "--to", restored)
			if n := sound(t, filepath.Join(restored, "db")); n < before || n > after+1 {
				t.Errorf("the commit holds %d rows, the database had %d before and %d after it", n, before, after)
			}
			rowsNow := rows(db)
			two := nextMachine(t, v)
			if n := sound(t, two.at("db")); n != rowsNow {
				t.Errorf("%d rows on the next machine, were %d", n, rowsNow)
			}
			two.umount()
		})
	}
}

// sound checks a database and that each transaction is there whole or not at all; it gives the number of rows.
func sound(t *testing.T, db string) int {
	t.Helper()
	out := strings.Fields(must(t, "/", "sqlite3", db,
		"PRAGMA integrity_check; SELECT count(*) FROM t; SELECT count(*) FROM sums;"))
	if len(out) != 3 || out[0] != "ok" || out[1] != out[2] {
		t.Errorf("%s: %v", db, out)
		return -1
	}
	n, _ := strconv.Atoi(out[1])
	return n
}

// TestProgramPostgres: initdb, pgbench, kill -9 of the server under load, recovery, and the same from a commit.
func TestProgramPostgres(t *testing.T) {
	deadline(t, 6*time.Minute)
	v := newSession(t)
	pg := newPostgres(t)
	mkdir(t, v.at("pg"), pg.as)
	server := pg.initialize(v.at("pg/data"))
	pg.client("pgbench", "-n", "-c", "4", "-T", "5", "bench")
	load := pg.command("pgbench", "-n", "-h", pg.run, "-U", "postgres", "-c", "4", "-T", "60", "bench").prepare(
		t.Context())
	check(t, load.Start())
	count := func() int {
		n, _ := strconv.Atoi(strings.TrimSpace(pg.client("psql", "-Atc", "SELECT count(*) FROM pgbench_history",
			"bench")))
		return n
	}
	first := count()
	if !waitFor(30*time.Second, func() bool { return count() > first+100 }) {
		t.Errorf("pgbench makes no progress")
	}
	v.sync() // a commit in the middle of the load
	last := count()
	check(t, unix.Kill(-server.Process.Pid, unix.SIGKILL))
	_ = server.Wait()
	_ = load.Wait()
	restored := filepath.Join(testDir(t), "restored")
	v.must("restore", "--from", v.source, "--to", restored)
	pg.recovers(last)
	two := nextMachine(t, v)
	pg.data = two.at("pg/data")
	pg.recovers(last)
	two.umount()
	pg.data = filepath.Join(restored, "pg/data")
	pg.recovers(first)
}

// TestProgramCopies: tar and rsync carry the odd tree into the mount and out of it without a difference.
func TestProgramCopies(t *testing.T) {
	t.Parallel()
	deadline(t, 5*time.Minute)
	native := mkdir(t, filepath.Join(testDir(t), "native"), user{})
	makeOddTree(t, native)
	want := scanTree(t, native)
	v := newSession(t)
	for _, d := range []string{"tar", "rsync"} {
		check(t, os.Mkdir(v.at(d), 0o755))
	}
	const tar = "tar --acls --xattrs --xattrs-include='*' --sparse --format=posix"
	shell(t, "/", tar+` -C `+native+` -cf - . 2>/dev/null | `+tar+` -C `+v.at("tar")+` -xpf -`)
	rsync(t, native, v.at("rsync"))
	sameTree(t, scanTree(t, v.at("rsync")), want, "rsync into the mount")
	back := mkdir(t, filepath.Join(testDir(t), "back"), user{})
	rsync(t, v.at("rsync"), back)
	sameTree(t, scanTree(t, back), want, "rsync out of the mount")
	rsyncClean(t, native, v.at("rsync"))
	// tar has limits of its own (sockets, links of FIFOs): what it makes on a native directory is what counts
	byTar := mkdir(t, filepath.Join(testDir(t), "tar"), user{})
	shell(t, "/", tar+` -C `+native+` -cf - . 2>/dev/null | `+tar+` -C `+byTar+` -xpf -`)
	sameTree(t, scanTree(t, v.at("tar")), scanTree(t, byTar), "tar into the mount")
	shell(t, "/", `rm -rf `+byTar+`; mkdir `+byTar+`; `+tar+` -C `+v.at("rsync")+` -cf - . 2>/dev/null | `+tar+` -C `+
		byTar+` -xpf -`)
	sameTree(t, scanTree(t, byTar), scanTree(t, v.at("tar")), "tar out of the mount")
	v.umount()
}

// TestProgramFio writes with several engines and verifies every block.
func TestProgramFio(t *testing.T) {
	t.Parallel()
	deadline(t, 4*time.Minute)
	lookPath(t, "fio")
	v := newSession(t)
	for _, job := range []string{
		"--rw=randwrite --bs=4k --ioengine=psync", "--rw=randrw --bs=1k-64k --ioengine=psync --fsync=32",
		"--rw=write --bs=1m --ioengine=psync",
		"--rw=randwrite --bs=4k --ioengine=mmap", "--rw=randwrite --bs=4k --ioengine=libaio --iodepth=8 --direct=1",
		"--rw=randwrite --bs=8k --ioengine=psync --fallocate=keep",
	} {
		name := strings.NewReplacer(" ", "", "-", "", "=", "").Replace(job)
		must(t, v.mnt, append([]string{"fio", "--name=" + name, "--directory=" + v.mnt, "--size=8m", "--numjobs=2",
			"--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--runtime=20", "--output=/dev/null"},
			strings.Fields(job)...)...)
	}
	want := scanTree(t, v.mnt)
	two := nextMachine(t, v)
	sameTree(t, scanTree(t, two.mnt), want, "next machine")
	two.umount()
}

// TestProgramStress runs stress-ng's file system stressors, two at a time; each judges for itself by --verify.
func TestProgramStress(t *testing.T) {
	deadline(t, 25*time.Minute)
	lookPath(t, "stress-ng")
	length := effort.Time(t, time.Second, 10*time.Second)
	v := newSession(t)
	t.Run("stressor", func(t *testing.T) { // comes back when all have
		for _, s := range []string{"access", "chdir", "chmod", "chown", "copy-file", "dentry", "dir", "dirdeep",
			"dirmany", "dup", "fallocate", "fcntl", "fiemap", "filename", "flock", "fpunch", "fstat", "getdent", "hdd",
			"inotify", "io", "iomix", "lease", "link", "locka", "lockf", "lockofd", "metamix", "mknod", "mmapfork",
			"msync", "open", "readahead", "rename", "revio", "seek", "sendfile", "symlink", "sync-file", "touch",
			"unlink", "utime", "verity", "xattr"} {
			t.Run(s, func(t *testing.T) {
				t.Parallel()
				dir := mkdir(t, filepath.Join(testDir(t), "native"), user{})
				inMount := mkdir(t, v.at("stress-"+s), user{})
				run := func(where string) result {
					return command{args: []string{"stress-ng", "--" + s, "2", "--timeout",
						fmt.Sprintf("%ds", int(length.Seconds())), "--verify", "--temp-path", where, "--metrics-brief"},
						limit: 3 * time.Minute}.run(t)
				}
				r := run(inMount)
				if r.code == 0 {
					return
				}
				if n := run(dir); n.code != 0 && (n.code == r.code || r.code == 3 || r.code == 4) {
					t.Logf("stress-ng itself does not manage this on a native directory: exit %d there, %d here",
						n.code, r.code)
					return
				}
				if r.code == 4 && (s == "verity" || s == "fiemap" || s == "lease") {
					return // it says "not implemented" of an ioctl or lease that FUSE does not have
				}
				t.Errorf("%v", r)
			})
		}
	})
	v.umount()
	fsck(t, v.cold())
}
