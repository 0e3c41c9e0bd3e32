//go:build slow

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { slowHelpers["powercut"] = helperPowerCut }

// cutJob is what the helper process "powercut" is to do. It runs in a mount namespace of its own, so that nothing stays
// mounted when it ends, however it ends, and so that it can have a boot id of its own: a power cut is followed by
// another boot.
type cutJob struct {
	Work     string // record or check
	Bin      string // emberfs
	Recorder string // integration/blocklog
	Dir      string // working directory
	FS       string
	Image    string // of the disk
	Log      string // of the recorder
	History  string // JSON of powercut.History
	Boot     string // boot id
	Seed     int64
	Ops      int           // record: how many
	Fresh    bool          // record: the disk has no volume yet
	Seen     int           // check: events that had been told by then
	Age      time.Duration // check: what is acknowledged for longer is durable
	Commits  []string      // check: commits of an earlier recording that must be there
}

// tiersInPowerCuts says whether the workload moves files between the tiers too: `emberfs tier` between the operations,
// and by age through powerCutTiering. The check needs no change: a released file reads as ever, and each tree is
// compared with its commit.
const tiersInPowerCuts = true

// powerCutTiering are the mount options with which files age within a recording.
var powerCutTiering = []string{"warm_age=1s", "tier_interval=1s"}

// powerCutRules have about a third of the files committed by themselves. The volume is on one machine alone, so no
// check asks for it.
const powerCutRules = `- {match: "**/*{0,3,6}", class: critical, critical_delay: 200ms}`

const (
	flushInterval = time.Second // of the volumes here
	// flushAge is the age at which the flush is done: it may begin when the last change before it is flushInterval old,
	// and takes time.
	flushAge = 2 * flushInterval
)

// helperPowerCut runs a job as the only test of a test binary.
func helperPowerCut(args []string) error {
	var job cutJob
	if err := readJSON(args[0], &job); err != nil {
		return err
	}
	env.base, env.bin, env.bins = job.Dir, job.Bin, []string{job.Bin}
	os.Args = []string{os.Args[0], "-test.v", "-test.timeout=5m"}
	run := map[string]func(*testing.T, cutJob){"record": recordPowerCut, "check": checkPowerCut}[job.Work]
	testing.Main(func(string, string) (bool, error) { return true, nil },
		[]testing.InternalTest{{Name: job.Work, F: func(t *testing.T) { run(t, job) }}}, nil, nil)
	return nil
}

// anotherBoot makes this process and its children see another boot id and an empty /run. It lets go of the mounts of
// others, which could not be unmounted while this namespace has copies of them, but not of the disk that the programs
// lie on.
func anotherBoot(t testing.TB, job cutJob) {
	t.Helper()
	for _, m := range slices.Backward(mounts()) {
		if (strings.HasPrefix(m.fstype, "fuse") || strings.HasPrefix(m.source, "/dev/loop")) &&
			!strings.HasPrefix(job.Bin, m.dir+"/") {
			check(t, unix.Unmount(m.dir, unix.MNT_DETACH))
		}
	}
	file := filepath.Join(job.Dir, "boot_id")
	check(t, os.WriteFile(file, []byte(job.Boot+"\n"), 0o644))
	check(t, unix.Mount(file, "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND, ""))
	// The daemons of two namespaces would not find each other's sockets and take each other's registrations for stale.
	check(t, unix.Mount("run", "/run", "tmpfs", 0, ""))
}

// mountDisk mounts a disk; the loop device goes with the mount.
func mountDisk(t testing.TB, job cutJob, file string) string {
	t.Helper()
	dir := mkdir(t, filepath.Join(job.Dir, "disk"), user{})
	options := map[string]string{"btrfs": "loop,nodiscard", "xfs": "loop,nouuid", "ext4": "loop"}[job.FS]
	must(t, "/", "mount", "-t", job.FS, "-o", options, file, dir)
	t.Cleanup(func() {
		if !waitFor(10*time.Second, func() bool {
			err := unix.Unmount(dir, 0)
			return err == nil || err == unix.EINVAL
		}) {
			t.Errorf("%s stays busy", dir)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir
}

// powerCutVolume is the volume on such a disk.
func powerCutVolume(t testing.TB, disk string) *volume {
	v := newVolume(t, "v", withOpts("chunk_threshold=256KiB", fmt.Sprint("flush_interval=", flushInterval)))
	v.state = filepath.Join(disk, "state")
	if tiersInPowerCuts {
		v.opts = append(v.opts, powerCutTiering...)
	}
	return v
}

func readJSON(path string, into any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

func writeJSON(t testing.TB, path string, from any) {
	t.Helper()
	b, err := json.Marshal(from)
	check(t, err)
	check(t, os.WriteFile(path, b, 0o644))
}
