package integration

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// mountEntry is a line of /proc/self/mountinfo.
type mountEntry struct {
	dir, fstype, source, options string
	minor                        int
}

var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func mounts() []mountEntry {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var all []mountEntry
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		dash := -1
		for i, s := range f {
			if s == "-" {
				dash = i
			}
		}
		if dash < 6 || len(f) < dash+4 {
			continue
		}
		_, minor, _ := strings.Cut(f[2], ":")
		n, _ := strconv.Atoi(minor)
		all = append(all, mountEntry{
			dir: unescapeMount.Replace(f[4]), fstype: f[dash+1], source: unescapeMount.Replace(f[dash+2]),
			options: f[5] + "," + f[dash+3], minor: n,
		})
	}
	return all
}

// ownNamespace is a shell's beginning in a mount namespace of its own (unshare -m): it lets go of the mounts of others,
// which could not be unmounted while it has copies of them, but for those below $KEEP, and of the disk that the tests
// work on.
const ownNamespace = `mount --make-rprivate /
awk '$3 ~ /^fuse/ {print $2}' /proc/self/mounts | tac | while read -r dir; do
	case "$(printf %b "$dir")/" in "$KEEP"/*) ;; *) umount -l "$(printf %b "$dir")" ;; esac
done
`

// mountAt is the topmost mount on dir, nil where there is none.
func mountAt(dir string) *mountEntry {
	all := mounts()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].dir == dir {
			return &all[i]
		}
	}
	return nil
}

// mountsBelow lists mounts under dir, the deepest first.
func mountsBelow(dir string) []mountEntry {
	var below []mountEntry
	for _, m := range mounts() {
		if strings.HasPrefix(m.dir, dir+"/") {
			below = append(below, m)
		}
	}
	sort.SliceStable(below, func(i, j int) bool { return len(below[i].dir) > len(below[j].dir) })
	return below
}

// clear ends a mount whatever state it is in: first the FUSE connection is aborted, which frees all who wait in it.
func (m mountEntry) clear() {
	if strings.HasPrefix(m.fstype, "fuse") {
		m.abort()
	}
	_ = unix.Unmount(m.dir, unix.MNT_DETACH)
}

// abort cuts the connection. The numbers of connections are given again: the file is opened first, and counts for the
// connection that had the number then, which the mount table is to confirm.
func (m mountEntry) abort() {
	ctl := "/sys/fs/fuse/connections"
	if _, err := os.Stat(filepath.Join(ctl, strconv.Itoa(m.minor))); err != nil {
		ctl = filepath.Join(env.base, "fusectl")
		if os.Mkdir(ctl, 0o700) != nil || unix.Mount("fusectl", ctl, "fusectl", 0, "") != nil {
			return
		}
		defer func() { _ = unix.Unmount(ctl, 0); _ = os.Remove(ctl) }()
	}
	f, err := os.OpenFile(filepath.Join(ctl, strconv.Itoa(m.minor), "abort"), os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if slices.ContainsFunc(mounts(), func(now mountEntry) bool { return now.dir == m.dir && now.minor == m.minor }) {
		_, _ = f.WriteString("1")
	}
}

// ourProcesses lists the processes that execute a binary of ours.
func ourProcesses() []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, d := range dirs {
		if to, err := os.Readlink(d + "/exe"); err == nil &&
			slices.Contains(env.bins, strings.TrimSuffix(to, " (deleted)")) && !isZombie(d) {
			pid, _ := strconv.Atoi(filepath.Base(d))
			pids = append(pids, pid)
		}
	}
	return pids
}

func isZombie(proc string) bool {
	b, err := os.ReadFile(proc + "/stat")
	if err != nil {
		return true
	}
	i := bytes.LastIndexByte(b, ')')
	return i < 0 || len(b) < i+3 || b[i+2] == 'Z'
}

func alive(pid int) bool { return !isZombie("/proc/" + strconv.Itoa(pid)) }

func killProcess(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return err
	}
	waitFor(10*time.Second, func() bool { return !alive(pid) })
	return nil
}

// waitFor polls until ok or the time is up, and gives the last answer.
func waitFor(limit time.Duration, ok func() bool) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok() {
			return true
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return ok()
		}
	}
}
