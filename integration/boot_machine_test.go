//go:build slow

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/testprog"
)

// bootRoot is a Debian with systemd from which the machines of all tests are made: what scripts/test has made, or one
// that is made once for this run.
var bootRoot = sync.OnceValues(func() (string, error) {
	if made := os.Getenv("EMBERFS_BOOT_ROOT"); made != "" {
		return made, nil
	}
	return made("scripts/bootroot", filepath.Join(env.base, "bootroot"))
})

// debPackage is the Debian package: the one that scripts/test has made, or one that is made once for this run.
var debPackage = sync.OnceValues(func() (string, error) {
	if made := os.Getenv("EMBERFS_DEB"); made != "" {
		return made, nil
	}
	dir, err := made("scripts/package", filepath.Join(env.base, "dist"))
	if err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(dir, "emberfs_*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("scripts/package made %v, %w", found, err)
	}
	return found[0], nil
})

// made runs a script of the project, whose argument is where its result goes, and returns that.
func made(script, to string) (string, error) {
	cmd := exec.Command(filepath.Join(env.module, script), to)
	cmd.Dir = env.module
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", script, err, clip(string(out)))
	}
	return to, nil
}

// machine is a Debian with systemd in a container. Its root is an overlay over bootRoot, and /srv, /data and
// /var/lib/emberfs are ordinary directories. What is there outlives a poweroff, as disks do.
type machine struct {
	t    *testing.T
	name string
	dir  string // root, upper, work, srv, data, console.log
	root string
}

// newMachine prepares a machine, in which a program can call mark to write a line to the timeline. With installed it
// has the package's files.
func newMachine(t *testing.T, installed bool) *machine {
	t.Helper()
	for _, program := range []string{"systemd-nspawn", "mmdebstrap"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("the tests that boot a machine need %s: %v", program, err)
		}
	}
	lower, err := bootRoot()
	check(t, err)
	deb, err := debPackage()
	check(t, err)
	m := &machine{t: t, name: fmt.Sprintf("emberfs-%d-%s", os.Getpid(), strings.ToLower(t.Name())),
		dir: testDir(t)}
	m.name = strings.NewReplacer("/", "-", "_", "-").Replace(m.name)
	m.root = filepath.Join(m.dir, "root")
	for _, d := range []string{"root", "upper", "work", "srv", "data/lib"} {
		check(t, os.MkdirAll(filepath.Join(m.dir, d), 0o755))
	}
	check(t, unix.Mount("overlay", m.root, "overlay", 0, "lowerdir="+lower+",upperdir="+m.dir+"/upper,workdir="+m.dir+
		"/work"))
	t.Cleanup(func() { check(t, unix.Unmount(m.root, 0)) })
	if installed {
		must(t, "/", "dpkg-deb", "-x", deb, m.root)
	} else {
		check(t, copyFile(deb, filepath.Join(m.root, "root/emberfs.deb"), 0o644))
	}
	m.write("/etc/machine-id", strings.Repeat("e", 32)+"\n")
	m.program("/usr/local/bin/mark", `#!/bin/sh
echo "$(date +%s.%N) $*" >>/data/timeline
sync /data/timeline
`)
	m.write("/etc/systemd/system/network-stand-in.service", `[Unit]
Before=network.target network-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/bin/mark network started
ExecStop=/usr/local/bin/mark network stopped
[Install]
WantedBy=network-online.target
`)
	m.enable("network-stand-in.service", "network-online.target")
	check(t, os.MkdirAll(m.root+"/var/log/journal", 0o755)) // so that it outlives the poweroff
	m.write("/etc/systemd/system.conf.d/short.conf", "[Manager]\nDefaultTimeoutStopSec=5s\n")
	return m
}

// write writes a file of the machine's, and the directories above it.
func (m *machine) write(path, content string) {
	m.t.Helper()
	check(m.t, os.MkdirAll(filepath.Dir(m.root+path), 0o755))
	check(m.t, os.WriteFile(m.root+path, []byte(content), 0o644))
}

func (m *machine) program(path, content string) {
	m.t.Helper()
	check(m.t, os.MkdirAll(filepath.Dir(m.root+path), 0o755))
	check(m.t, testprog.Write(m.root+path, content))
}

// enable does what systemctl enable does for a unit that a target wants.
func (m *machine) enable(unit, target string) {
	m.t.Helper()
	from := "/etc/systemd/system/" + unit
	if name, _, ok := strings.Cut(unit, "@"); ok {
		from = "/usr/lib/systemd/system/" + name + "@.service"
	}
	wants := filepath.Join(m.root, "etc/systemd/system", target+".wants")
	check(m.t, os.MkdirAll(wants, 0o755))
	check(m.t, os.Symlink(from, filepath.Join(wants, unit)))
}

// repo makes a bare repository in the machine's /srv. Where slow is over 0, its hook takes so many seconds for each
// push, and marks its end.
func (m *machine) repo(name string, slow int) string {
	m.t.Helper()
	dir := filepath.Join(m.dir, "srv", name+".git")
	must(m.t, "/", "git", "init", "-q", "--bare", "-b", "main", dir)
	if slow > 0 {
		check(m.t, testprog.Write(filepath.Join(dir, "hooks/pre-receive"), fmt.Sprintf(`#!/bin/sh
[ -e /data/slow ] || exit 0
/usr/local/bin/mark %[1]s begun
sleep %[2]d
/usr/local/bin/mark %[1]s backed up
`, name, slow)))
	}
	return "/srv/" + name + ".git"
}

// pushed returns what the branch of a repository in the machine has at a path.
func (m *machine) pushed(name, path string) string {
	m.t.Helper()
	return show(m.t, filepath.Join(m.dir, "srv", name+".git"), "main:"+path)
}

// data returns a file of the machine's /data, "" if there is none.
func (m *machine) data(name string) string {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.dir, "data", name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Fatal(err)
	}
	return string(b)
}

// boot boots the machine, runs a script of bash as root when it is up, and waits until it has powered off, which the
// script begins, or its end does. A line "fail: ..." in the script's output fails the test.
func (m *machine) boot(script string) {
	m.t.Helper()
	m.program("/usr/local/bin/probe", `#!/bin/bash
exec >>/data/probe.log 2>&1
fail() { echo "fail: $*"; }
wait_for() { # SECONDS COMMAND...
	local n=$(($1 * 10)); shift
	while ! "$@" >/dev/null 2>&1; do [ $((n--)) -gt 0 ] || { fail "not within the time: $*"; return 1; }; sleep 0.1; done
}
`+script+`
sync
systemctl poweroff --no-block
`)
	m.write("/etc/systemd/system/probe.service", `[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/usr/local/bin/probe
TimeoutStartSec=90s
`)
	m.write("/etc/systemd/system/probe.target", `[Unit]
Requires=multi-user.target probe.service
After=multi-user.target
`)
	m.run("systemd.unit=probe.target")
	m.t.Cleanup(func() {
		if m.t.Failed() {
			console, _ := os.ReadFile(filepath.Join(m.dir, "console.log"))
			m.t.Logf("console:\n%s\nprobe:\n%s\ntimeline:\n%s", clip(string(console)), clip(m.data("probe.log")),
				m.data("timeline"))
		}
	})
	for _, line := range strings.Split(m.data("probe.log"), "\n") {
		if strings.HasPrefix(line, "fail: ") {
			m.t.Error(line)
		}
	}
}

// run starts the container, in a cgroup of its own, and waits until it has powered off.
func (m *machine) run(args ...string) {
	m.t.Helper()
	var groups []string // of hybrid cgroups both count
	for _, top := range []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(top, "cgroup.procs")); err == nil {
			groups = append(groups, filepath.Join(top, m.name))
		}
	}
	if len(groups) == 0 {
		groups = []string{filepath.Join("/sys/fs/cgroup", m.name)}
	}
	enter := ""
	for _, g := range groups {
		check(m.t, os.Mkdir(g, 0o755))
		enter += "echo $$ >" + g + "/cgroup.procs && "
	}
	defer removeGroups(m.t, groups)
	console, err := os.OpenFile(filepath.Join(m.dir, "console.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	check(m.t, err)
	defer console.Close()
	ctx, cancel := context.WithTimeout(m.t.Context(), 2*time.Minute)
	defer cancel()
	nspawn := append([]string{"systemd-nspawn", "-D", m.root, "--machine=" + m.name, "--boot", "--register=no",
		"--keep-unit", "--link-journal=no", "--private-network", "--bind=/dev/fuse", "--bind=/dev/autofs",
		"--bind=" + m.dir + "/srv:/srv", "--bind=" + m.dir + "/data:/data",
		"--bind=" + m.dir + "/data/lib:/var/lib/emberfs", "--"}, args...)
	// The container's mount namespace is a copy, which would keep the volumes of other tests in use.
	drop := `awk -v base="$0/" -v own="$1/" 'index($2, base) == 1 && index($2 "/", own) != 1 { print $2 }' \
		/proc/self/mounts | sort -r |
		while read -r at; do umount -l "$(printf %b "$at")"; done; shift; `
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c",
		enter + drop + `exec "$@"`, env.base, m.dir}, nspawn...)...)
	cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1")
	cmd.Stdout, cmd.Stderr = console, console
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(filepath.Join(m.dir, "console.log"))
		m.t.Fatalf("systemd-nspawn does not boot a machine here, or it did not power off: %v\n%s\nprobe: %s", err,
			clip(string(text)), m.data("probe.log"))
	}
}

// removeGroups ends what is left of a container, and removes its cgroups.
func removeGroups(t *testing.T, groups []string) {
	t.Helper()
	for _, g := range groups {
		_ = os.WriteFile(filepath.Join(g, "cgroup.kill"), []byte("1"), 0o644) // cgroup v1 has none
	}
	for _, g := range groups {
		if !waitFor(10*time.Second, func() bool {
			_ = command{args: []string{"find", g, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"}}.succeeds()
			_, err := os.Stat(g)
			return errors.Is(err, os.ErrNotExist)
		}) {
			t.Errorf("the cgroup %s is left", g)
		}
	}
}
