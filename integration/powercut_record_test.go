//go:build slow

package integration

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/powercut"
)

// recordPowerCut works in a volume on a disk of which every write and flush is logged, and notes in the same log what
// it was told.
func recordPowerCut(t *testing.T, job cutJob) {
	anotherBoot(t, job)
	rec := startRecorder(t, job)
	disk := mountDisk(t, job, filepath.Join(rec, "disk"))
	mark, err := os.OpenFile(filepath.Join(rec, "mark"), os.O_WRONLY, 0)
	check(t, err)
	defer mark.Close()
	w := &recording{t: t, v: powerCutVolume(t, disk), rnd: rand.New(rand.NewSource(job.Seed)), mark: mark,
		start: time.Now()}
	w.h = &powercut.History{Seed: job.Seed, Files: map[string][]byte{}}
	w.note("begin")
	w.v.mount()
	w.v.rules(powerCutRules)
	if !job.Fresh {
		w.adopt()
	}
	w.run(job.Ops)
	w.note("end")
	w.v.kill()
	writeJSON(t, job.History, w.h)
}

// startRecorder serves the disk's image through the recorder and gives the directory of its files.
func startRecorder(t testing.TB, job cutJob) string {
	t.Helper()
	dir := mkdir(t, filepath.Join(job.Dir, "rec"), user{})
	cmd := exec.Command(job.Recorder, job.Image, job.Log, dir)
	var says bytes.Buffer
	out, err := cmd.StdoutPipe()
	check(t, err)
	cmd.Stderr = &says
	check(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		kill := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil || says.Len() > 0 {
			t.Errorf("the recorder: %v\n%s", err, says.String())
		}
	})
	line := make([]byte, 16)
	if n, err := out.Read(line); err != nil || !strings.HasPrefix(string(line[:n]), "ready") {
		t.Fatalf("the recorder does not come up: %q, %v", line[:n], err)
	}
	return dir
}

// recording is a workload under way.
type recording struct {
	t     *testing.T
	v     *volume
	rnd   *rand.Rand
	h     *powercut.History
	mark  *os.File
	start time.Time
	syncs sync.WaitGroup

	mu sync.Mutex // the order of events is the order of their marks
}

// note puts a mark into the disk's log.
func (w *recording) note(text string) {
	_, err := w.mark.Write([]byte(text))
	check(w.t, err)
}

// told adds an event and its mark, which is the event's number.
func (w *recording) told(e powercut.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e.At = time.Since(w.start)
	w.h.Events = append(w.h.Events, e)
	w.note(fmt.Sprint(len(w.h.Events) - 1))
}

// adopt makes what is in the mount the beginning of the history.
func (w *recording) adopt() {
	check(w.t, filepath.WalkDir(w.v.mnt, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(w.v.mnt, p)
		switch {
		case err != nil || rel == ".":
		case d.IsDir():
			w.h.Dirs = append(w.h.Dirs, rel)
		default:
			w.h.Files[rel], err = os.ReadFile(p)
		}
		return err
	}))
}

// run does n operations, with commits beside and between them; the daemon is killed once and stopped once. For a while
// after the kill there are no commits and then nothing happens for so long that flush_interval alone must have made all
// durable.
func (w *recording) run(n int) {
	for i := range n {
		switch i {
		case n*2/5 + 1:
			w.v.rules("") // nor of what is critical
		case n * 11 / 20:
			w.v.rules(powerCutRules)
		}
		w.do(w.h.Next(w.rnd))
		quiet := i > n*2/5 && i < n*11/20
		switch k := w.rnd.Intn(16); {
		case quiet:
		case k == 0:
			w.sync(i + 1)
		case k < 4:
			w.syncs.Wait() // of the one before
			done := i + 1
			w.syncs.Go(func() { w.sync(done) })
		case k == 4 && tiersInPowerCuts:
			if r := w.v.emberfs("tier", w.v.mnt); r.code != 0 {
				w.t.Errorf("%v", r)
			}
		}
		switch i {
		case n * 2 / 5:
			w.syncs.Wait()
			w.v.kill()
			w.v.mount()
		case n / 2:
			time.Sleep(flushAge + 200*time.Millisecond)
		case n * 3 / 5:
			w.syncs.Wait()
			w.v.umount()
			w.told(powercut.Event{Op: i + 1, Commit: w.tip()})
			w.v.mount()
		case n * 4 / 5:
			if r := w.v.emberfs("gc", w.v.mnt, "--grace", "0s"); r.code != 0 {
				w.t.Errorf("%v", r)
			}
		}
	}
	w.syncs.Wait()
}

// sync commits what the first done operations did.
func (w *recording) sync(done int) {
	if r := w.v.emberfs("sync", w.v.mnt); r.code != 0 {
		w.t.Errorf("%v", r)
		return
	}
	w.told(powercut.Event{Op: done, Commit: w.tip()})
}

// tip is the last commit, read without a daemon.
func (w *recording) tip() string {
	return strings.TrimSpace(must(w.t, "/", "git", "-C", w.v.cold(), "rev-parse", "main"))
}

// do does an operation in the mount and notes that it was acknowledged.
func (w *recording) do(op powercut.Op) {
	w.t.Helper()
	i := w.h.Add(op)
	if err := doOp(w.v, op, w.h.Data(i)); err != nil {
		w.t.Fatalf("operation %d: %v: %v", i, op, err)
	}
	w.told(powercut.Event{Ack: true})
}

func doOp(v *volume, op powercut.Op, data []byte) error {
	at := v.at(op.Path)
	flags := unix.O_RDONLY
	switch op.Kind {
	case powercut.Mkdir:
		return unix.Mkdir(at, 0o755)
	case powercut.Rename:
		return unix.Rename(at, v.at(op.To))
	case powercut.Unlink:
		return unix.Unlink(at)
	case powercut.Create:
		flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL
	case powercut.Put:
		flags = unix.O_WRONLY
	case powercut.Rewrite:
		flags = unix.O_WRONLY | unix.O_TRUNC
	}
	fd, err := unix.Open(at, flags|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	for off := int64(op.Off); len(data) > 0 && err == nil; {
		var n int
		n, err = unix.Pwrite(fd, data, off)
		data, off = data[max(n, 0):], off+int64(n)
	}
	if err == nil && op.Sync == powercut.Fsync {
		err = unix.Fsync(fd)
	} else if err == nil && op.Sync == powercut.Fdatasync {
		err = unix.Fdatasync(fd)
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}
