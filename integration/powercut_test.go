//go:build slow

package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
	"emberfs/integration/powercut"
)

// disk is a file system that a volume lies on while the power is cut.
type disk struct {
	name   string
	mib    int
	sector int // below which its own structures must not tear: xfs and btrfs trust in 4 KiB
	mkfs   []string
}

// The tests of power cuts cut the power of the disk that a volume lies on, again and again, and hold what is left to
// the promises. Half of the cuts are in a second recording, whose disk is what a cut of the first one left: recovery is
// cut too. With EMBERFS_KEEP=1 the disk of a cut that failed stays.

func TestPowerCutExt4(t *testing.T) {
	powerCut(t, disk{"ext4", 256, 512, []string{"mkfs.ext4", "-q", "-m", "0", "-E",
		"lazy_itable_init=0,lazy_journal_init=0,nodiscard"}})
}

func TestPowerCutXFS(t *testing.T) {
	powerCut(t, disk{"xfs", 304, 4096, []string{"mkfs.xfs", "-q", "-K"}})
}

func TestPowerCutBtrfs(t *testing.T) {
	powerCut(t, disk{"btrfs", 256, 4096, []string{"mkfs.btrfs", "-q", "-K"}})
}

func powerCut(t *testing.T, fs disk) {
	lookPath(t, fs.mkfs[0], "losetup", "git")
	deadline(t, 25*time.Minute)
	cuts := effort.Count(t, 24, 300)
	p := &powerCuts{t: t, fs: fs.name, sector: fs.sector, recorder: recorder(t), dir: memoryDir(t),
		seed: effort.Seed(t)}
	base := filepath.Join(p.dir, "base")
	must(t, "/", "truncate", "-s", fmt.Sprintf("%dM", fs.mib), base)
	must(t, "/", append(fs.mkfs, base)...)
	must(t, "/", "fallocate", "--dig-holes", base)
	first := p.record("first", p.seed, base, nil)
	p.cut(first, cuts-cuts/2)
	// The next recording begins with what one of these cuts left.
	at := first.log.Cuts(20, first.begin, first.end, p.seed)[12]
	left := filepath.Join(p.dir, "left")
	check(t, p.image(first, at, left))
	second := p.record("second", p.seed+1, left, first.commitsBefore(at))
	p.cut(second, cuts/2)
}

// recorder is the program that serves a disk and logs what is done to it.
func recorder(t *testing.T) string {
	t.Helper()
	to := filepath.Join(env.base, "blocklog")
	check(t, goBuildPackage(to, "./integration/blocklog"))
	return to
}

// memoryDir is a directory in memory, where there is room: the images are written anew all the time.
func memoryDir(t *testing.T) string {
	t.Helper()
	var st unix.Statfs_t
	if unix.Statfs("/dev/shm", &st) != nil || st.Type != unix.TMPFS_MAGIC || st.Bavail*uint64(st.Bsize) < 3<<30 {
		return testDir(t)
	}
	dir, err := os.MkdirTemp("/dev/shm", "emberfs-cut-")
	check(t, err)
	t.Cleanup(func() {
		if os.Getenv("EMBERFS_KEEP") == "" {
			check(t, os.RemoveAll(dir))
		} else {
			t.Logf("kept %s", dir)
		}
	})
	return dir
}

// powerCuts are the cuts on one file system.
type powerCuts struct {
	t        *testing.T
	fs       string
	sector   int
	recorder string
	dir      string
	seed     int64
}

// recorded is a recording and where the work lies in its log.
type recorded struct {
	name       string
	base       string // the disk before it
	log        powercut.Log
	history    powercut.History
	begin, end int
	commits    []string // of earlier recordings
}

// run runs a job in a helper process and gives what it said.
func (p *powerCuts) run(job cutJob) (string, error) {
	job.Bin, job.Recorder, job.FS, job.Boot = env.bin, p.recorder, p.fs, uuid.NewString()
	if err := os.MkdirAll(job.Dir, 0o755); err != nil {
		return "", err
	}
	file := filepath.Join(job.Dir, "job.json")
	writeJSON(p.t, file, job)
	ctx, cancel := context.WithTimeout(p.t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, env.self, file)
	cmd.Env = append(baseEnv(), helperVar+"=powercut", "TMPDIR="+job.Dir, "EMBERFS_KEEP="+os.Getenv("EMBERFS_KEEP"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Unshareflags: syscall.CLONE_NEWNS}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	for _, pid := range ourProcesses() { // a helper that died leaves its daemon, and with it the mounts
		if b, rerr := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); rerr == nil &&
			bytes.Contains(b, []byte(job.Dir+"/")) {
			_ = killProcess(pid)
		}
	}
	return out.String(), err
}

// record makes a recording on a copy of base.
func (p *powerCuts) record(name string, seed int64, base string, commits []string) *recorded {
	p.t.Helper()
	dir := filepath.Join(p.dir, name)
	check(p.t, os.MkdirAll(dir, 0o755))
	job := cutJob{Work: "record", Dir: dir, Image: dir + ".disk", Log: dir + ".log", History: dir + ".history",
		Seed: seed, Ops: 250, Fresh: commits == nil}
	must(p.t, "/", "cp", "--sparse=always", base, job.Image)
	started := time.Now()
	if out, err := p.run(job); err != nil {
		p.t.Fatalf("%s recording: %v\n%s", name, err, out)
	}
	r := &recorded{name: name, base: base, commits: commits}
	var err error
	r.log, err = powercut.ReadLog(job.Log)
	check(p.t, err)
	check(p.t, readJSON(job.History, &r.history))
	var flushes, size int
	for i, e := range r.log {
		switch {
		case e.Kind == powercut.Flush:
			flushes++
		case e.Kind == powercut.Mark && string(e.Data) == "begin":
			r.begin = i
		case e.Kind == powercut.Mark && string(e.Data) == "end":
			r.end = i
		}
		size += len(e.Data)
	}
	check(p.t, os.Remove(job.Image))
	p.t.Logf("%s recording: %d operations, %d entries, %d flushes, %d MB in %v", name, len(r.history.Ops), len(r.log),
		flushes, size>>20, time.Since(started).Round(time.Millisecond))
	return r
}

// seen is the number of events that had been told before a cut.
func (r *recorded) seen(c powercut.Cut) int {
	return len(r.log.Marks(c.At)) - len(r.log.Marks(min(c.At, r.begin+1)))
}

func (r *recorded) commitsBefore(c powercut.Cut) []string {
	commits := append([]string{}, r.commits...)
	for _, e := range r.history.Events[:r.seen(c)] {
		if e.Commit != "" {
			commits = append(commits, e.Commit)
		}
	}
	return commits
}

// builder begins with a fresh copy of the disk before a recording.
func (p *powerCuts) builder(r *recorded, name string) (*powercut.Builder, error) {
	work := filepath.Join(p.dir, name)
	if out, err := exec.Command("cp", "--sparse=always", r.base, work).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return powercut.NewBuilder(r.log, work, p.sector)
}

// image makes the disk of one cut.
func (p *powerCuts) image(r *recorded, c powercut.Cut, to string) error {
	b, err := p.builder(r, filepath.Base(to)+".work")
	if err != nil {
		return err
	}
	return errors.Join(b.Image(c, to), b.Close(), os.Remove(to+".work"))
}

// cut makes n cuts of a recording and checks each, two at a time.
func (p *powerCuts) cut(r *recorded, n int) {
	p.t.Helper()
	started := time.Now()
	b, err := p.builder(r, r.name+".work")
	check(p.t, err)
	defer func() { check(p.t, b.Close()) }()
	var g errgroup.Group
	g.SetLimit(2)
	for i, c := range r.log.Cuts(n, r.begin, r.end, p.seed) {
		if p.t.Failed() && os.Getenv("EMBERFS_KEEP") == "" {
			break
		}
		dir := filepath.Join(p.dir, fmt.Sprintf("%s-%d", r.name, i))
		image := dir + ".disk"
		check(p.t, b.Image(c, image))
		job := cutJob{Work: "check", Dir: dir, Image: image, History: filepath.Join(p.dir, r.name+".history"),
			Seen: r.seen(c), Age: flushAge, Commits: r.commits}
		g.Go(func() error {
			out, err := p.run(job)
			if err != nil {
				p.t.Errorf("%s, %s recording, %v, seed of the recording %d: %v\n%s", p.fs, r.name, c, p.seed, err, out)
				if os.Getenv("EMBERFS_KEEP") != "" {
					p.t.Logf("the log of the disk and its image before it: %s.log, %s", filepath.Join(p.dir, r.name),
						r.base)
				}
			} else if i == 0 {
				p.t.Logf("a check\n%s", out)
			}
			if err == nil || os.Getenv("EMBERFS_KEEP") == "" {
				_ = os.RemoveAll(dir)
				return os.Remove(image)
			}
			return nil
		})
	}
	check(p.t, g.Wait())
	p.t.Logf("%s recording: %d cuts in %v", r.name, n, time.Since(started).Round(time.Millisecond))
}
