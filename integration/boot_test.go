//go:build slow

package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"emberfs/integration/testprog"
)

// TestBootPackage installs the Debian package on a machine that has never seen EmberFS, uses it, and removes it:
// nothing is left but the settings and the data.
func TestBootPackage(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	m := newMachine(t, false)
	m.repo("work", 0)
	m.boot(`
all() {
	find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/log -o -path /var/cache \
		-o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/lib/systemd \) -prune -o -print | sort
}
all >/data/before
apt-get install -y --no-install-recommends /root/emberfs.deb || fail "apt does not install the package"
emberfs version
for helper in mount.fuse.emberfs mount.emberfs umount.fuse.emberfs umount.emberfs; do
	[ -x /sbin/$helper ] || fail "no /sbin/$helper"
done
[ -f /usr/share/man/man8/emberfs-mount.8.gz ] || fail "no manual"
for file in copyright changelog.gz examples/cloud-init.yaml examples/emberfs.pkr.hcl examples/mnt-work.automount; do
	[ -f /usr/share/doc/emberfs/$file ] || fail "no $file"
done
[ -f /usr/share/zsh/vendor-completions/_emberfs ] && [ -f /usr/share/fish/vendor_completions.d/emberfs.fish ] ||
	fail "no completions"
bash -c '. /usr/share/bash-completion/completions/emberfs && complete -p emberfs' || fail "bash does not complete"
(cd / && md5sum --quiet -c /var/lib/dpkg/info/emberfs.md5sums) || fail "the files are not those of the package"

printf 'source: /srv/work.git\n' >/etc/emberfs/mnt-work.yaml
systemctl enable --now emberfs@mnt-work.service || fail "the service does not start"
echo hello >/mnt/work/f || fail "the volume is not there"
[ "$(emberfs __complete umount /mnt/ 2>/dev/null | head -1)" = /mnt/work ] || fail "umount is not completed"
dpkg -r emberfs >/data/refused 2>&1 && fail "the package was removed under a mounted volume"
grep -q '^/mnt/work$' /data/refused || fail "the mounted volume is not named: $(cat /data/refused)"
cat /mnt/work/f || fail "the refused removal ended the volume"
dpkg -i /root/emberfs.deb || fail "it cannot be installed over itself"
cat /mnt/work/f || fail "an upgrade ended the volume"
systemctl stop emberfs@mnt-work.service || fail "the service does not stop"
dpkg --purge emberfs || fail "the package cannot be removed"
all >/data/after
`)
	equal(t, m.pushed("work", "f"), "hello\n", "the remote holds")
	before, after := strings.Split(m.data("before"), "\n"), strings.Split(m.data("after"), "\n")
	left := slices.DeleteFunc(after, func(path string) bool { return slices.Contains(before, path) })
	equal(t, strings.Join(left, " "), "/etc/emberfs /etc/emberfs/mnt-work.yaml /mnt/work", "left of the package:")
	if len(before) < 1000 {
		t.Errorf("the machine has %d files", len(before))
	}
}

// TestBootPoweroff boots a machine with a volume in fstab and one as a service, and powers it off: the program that
// uses them stops first, then both final backups run for 35 s although systemd's default is to wait for 5 s, then the
// resolver and the network stop. Both remotes have everything. So has that of a service whose mount went a moment
// before, without anybody waiting for its backup.
func TestBootPoweroff(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	m := newMachine(t, true)
	a, b := m.repo("a", 35), m.repo("b", 35)
	check(t, testprog.Write(filepath.Join(m.dir, "srv/b.git/hooks/post-receive"),
		"#!/bin/sh\n[ -e /data/slow ] && systemctl show -p StatusText --value emberfs@mnt-b >/data/status\n"))
	m.write("/etc/fstab", a+" /mnt/a fuse.emberfs _netdev,nofail,x-systemd.mount-timeout=infinity 0 0\n"+
		"/srv/none.git /mnt/none fuse.emberfs _netdev,nofail,x-systemd.mount-timeout=infinity 0 0\n")
	m.write("/etc/emberfs/mnt-b.yaml", "source: "+b+"\n")
	m.write("/etc/emberfs/mnt-c.yaml", "source: "+m.repo("c", 8)+"\n")
	m.enable("emberfs@mnt-c.service", "remote-fs.target")
	m.write("/etc/emberfs/token", "hush\n")
	m.write("/etc/systemd/system/emberfs@mnt-b.service.d/short.conf",
		"[Service]\nTimeoutStopSec=5s\nLoadCredential=emberfs-token:/etc/emberfs/token\n")
	m.enable("emberfs@mnt-b.service", "remote-fs.target")
	m.write("/etc/systemd/system/app.service", `[Unit]
RequiresMountsFor=/mnt/a
Requires=emberfs@mnt-b.service
After=emberfs@mnt-b.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'echo early | tee /mnt/a/early /mnt/b/early'
ExecStop=/bin/sh -c 'sleep 0.5; echo late | tee /mnt/a/late /mnt/b/late; mark app stopped'
[Install]
WantedBy=multi-user.target
`)
	m.enable("app.service", "multi-user.target")
	m.write("/etc/systemd/system/names.service", `[Unit]
Wants=nss-lookup.target
Before=nss-lookup.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/usr/local/bin/mark names stopped
`)
	m.enable("names.service", "multi-user.target")
	m.boot(`
touch /data/slow
[ "$(cat /mnt/a/early /mnt/b/early)" = "early
early" ] || fail "the volumes are not there after boot"
mountpoint -q /mnt/none && fail "a volume without a source is mounted"
systemctl show -p StatusText --value emberfs@mnt-b | grep -q ^mounted || fail "the service does not say what it does"
echo unmounted >/mnt/c/f || fail "the third volume is not there"
fusermount3 -u /mnt/c || fail "fusermount3"
`)
	for _, name := range []string{"a", "b"} {
		equal(t, m.pushed(name, "early"), "early\n", "the remote %s holds", name)
		equal(t, m.pushed(name, "late"), "late\n", "the remote %s holds", name)
	}
	m.order("network started", "app stopped", "a backed up", "network stopped")
	m.order("network started", "app stopped", "b backed up", "network stopped")
	m.order("b backed up", "names stopped")
	equal(t, m.pushed("c", "f"), "unmounted\n", "the remote c holds")
	m.order("c begun", "c backed up", "network stopped")
	if got := m.data("status"); !strings.HasPrefix(got, "final backup: not safe yet: ") {
		t.Errorf("status during the final backup: %q", got)
	}
	console, err := os.ReadFile(filepath.Join(m.dir, "console.log"))
	check(t, err)
	journal := must(t, "/", "journalctl", "-q", "-D", m.root+"/var/log/journal", "-o", "cat")
	if !strings.Contains(journal, "COMPLETE") {
		t.Errorf("the journal says nothing of the final backup:\n%s", clip(journal))
	}
	for _, text := range []string{string(console), journal} {
		if strings.Contains(text, "SIGKILL to PID") || strings.Contains(text, "signal SIGKILL") {
			t.Error("systemd killed somebody")
		}
	}
}

// order requires that these lines of the timeline, and no other number of them, came in this order.
func (m *machine) order(lines ...string) {
	m.t.Helper()
	var got []string
	for _, line := range strings.Split(strings.TrimSpace(m.data("timeline")), "\n") {
		_, text, _ := strings.Cut(line, " ")
		if slices.Contains(lines, text) {
			got = append(got, text)
		}
	}
	equal(m.t, strings.Join(got, ", "), strings.Join(lines, ", "), "the timeline is")
}

// TestBootDaemonDies: systemd starts the service of a volume again whose daemon was killed, or hangs; nothing that was
// acknowledged is lost, in memory neither. mount(8) and systemd mount over the dead mount of one in fstab.
func TestBootDaemonDies(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	m := newMachine(t, true)
	a, b := m.repo("a", 0), m.repo("b", 0)
	m.write("/etc/fstab", a+" /mnt/a fuse.emberfs _netdev,nofail,x-systemd.mount-timeout=infinity 0 0\n")
	m.write("/etc/emberfs/mnt-b.yaml", "source: "+b+"\nrules:\n  - match: tmp/\n    class: memory\n")
	m.write("/etc/systemd/system/emberfs@mnt-b.service.d/short.conf", "[Service]\nWatchdogSec=2s\n")
	m.enable("emberfs@mnt-b.service", "remote-fs.target")
	m.boot(`
unit=emberfs@mnt-b.service
pid_of() { systemctl show -p MainPID --value $unit; }
back() { [ "$(pid_of)" != "$pid" ] && [ "$(pid_of)" != 0 ] && systemctl is-active $unit && stat -f /mnt/b; }
mkdir /mnt/b/tmp && echo memory >/mnt/b/tmp/m && echo disk >/mnt/b/f || fail "the volume cannot be written"
for how in KILL STOP; do
	pid=$(pid_of)
	kill -$how $pid
	wait_for 40 back
	[ "$(cat /mnt/b/f /mnt/b/tmp/m)" = "disk
memory" ] || fail "after SIG$how: $(cat /mnt/b/f /mnt/b/tmp/m 2>&1)"
	echo more >>/mnt/b/after-$how || fail "after SIG$how the volume cannot be written"
done
[ "$(systemctl show -p NRestarts --value $unit)" = 2 ] || fail "$(systemctl show -p NRestarts $unit)"
[ "$(journalctl -u $unit | grep -c 'the dead mount is taken away')" = 2 ] || fail "the journal does not say it"
journalctl -u $unit | grep -qi 'watchdog timeout' || fail "it was not the watchdog"

daemon_of() { pgrep -f "^emberfs daemon $1"; }
for how in mount systemctl; do
	echo $how >/mnt/a/$how
	exec 9</mnt/a/$how # whoever has a file open there can do nothing with it
	kill -9 $(daemon_of /mnt/a)
	wait_for 10 sh -c '! stat -f /mnt/a'
	case $how in
	mount) mount /mnt/a 2>/data/said || fail "mount over a dead mount: $(cat /data/said)"
		grep -q 'the dead mount is taken away' /data/said || fail "mount does not say it: $(cat /data/said)" ;;
	systemctl) systemctl restart mnt-a.mount || fail "systemctl restart of a dead mount" ;;
	esac
	[ "$(cat /mnt/a/$how)" = $how ] || fail "after $how"
	[ "$(findmnt -n /mnt/a | wc -l)" = 1 ] || fail "there are mounts upon mounts: $(findmnt /mnt/a)"
done
emberfs status
`)
	equal(t, m.pushed("b", "f"), "disk\n", "the remote holds")
	equal(t, m.pushed("b", "after-STOP"), "more\n", "the remote holds")
	equal(t, m.pushed("a", "mount")+m.pushed("a", "systemctl"), "mount\nsystemctl\n", "the remote holds")
}

// TestBootUnits: the sample units as they are, an automount that ends when nobody uses it, a stop that systemd loses
// patience with, a busy mount, umount(8) with what it can be given, a mountpoint with an odd name, and a removal that
// is refused.
func TestBootUnits(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	m := newMachine(t, true)
	m.repo("git/work", 0)
	m.repo("odd", 0)
	auto, slow := m.repo("auto", 0), m.repo("slow", 12)
	for _, name := range []string{"mnt-work.mount", "mnt-work.automount"} {
		m.copyUnit(name)
	}
	m.enable("mnt-work.automount", "remote-fs.target")
	check(t, os.Mkdir(m.root+"/root/scripts", 0o755))
	check(t, copyFile(filepath.Join(env.module, "scripts/install"), m.root+"/root/scripts/install", 0o755))
	m.write("/etc/fstab", auto+" /mnt/auto fuse.emberfs _netdev,nofail,x-systemd.automount,x-systemd.idle-timeout=2s,"+
		"x-systemd.mount-timeout=infinity 0 0\n"+slow+" /mnt/slow fuse.emberfs _netdev,noauto,"+
		"x-systemd.mount-timeout=4s 0 0\n")
	m.boot(`
mounted() { grep -q " $1 fuse.emberfs " /proc/mounts; }
gone() { ! mounted $1; }
mounted /mnt/work && fail "the automount has mounted already"
echo work >/mnt/work/f || fail "the sample units do not mount"
mounted /mnt/work || fail "the file is not in the volume"
echo auto >/mnt/auto/f || fail "the automount of fstab does not mount"
wait_for 20 gone /mnt/auto
[ "$(cat /mnt/auto/f)" = auto ] || fail "after the idle automount"

touch /data/slow
systemctl start mnt-slow.mount || fail "mnt-slow.mount does not start"
echo slow >/mnt/slow/f
(cd /mnt/slow && from=$SECONDS && umount /mnt/slow; code=$?; [ $code = 32 ] && [ $((SECONDS - from)) -lt 4 ] ||
	fail "umount of a busy volume: exit $code after $((SECONDS - from)) s")
systemctl stop --no-block mnt-slow.mount
wait_for 40 git -C /srv/slow.git cat-file -e main:f
rm /data/slow
[ "$(grep -c 'slow begun' /data/timeline)" = 2 ] || fail "nobody lost patience: $(cat /data/timeline)"
systemctl reset-failed mnt-slow.mount
wait_for 20 systemctl start mnt-slow.mount
[ "$(cat /mnt/slow/f)" = slow ] || fail "the volume that was stopped"
for how in -c -l -f -R; do
	echo "x$how" >/mnt/slow/f
	umount $how /mnt/slow || fail "umount $how"
	[ "$(git -C /srv/slow.git show main:f)" = "x$how" ] || fail "umount $how came back before the backup"
	wait_for 20 mount /mnt/slow
done
PREFIX=/usr /root/scripts/install --uninstall >/data/refused 2>&1 && fail "uninstalled under a mounted volume"
grep -q '^/mnt/slow$' /data/refused || fail "the mounted volume is not named: $(cat /data/refused)"
odd=$(systemd-escape -p '/mnt/my work-1')
printf 'source: /srv/odd.git\n' >"/etc/emberfs/$odd.yaml"
systemctl enable --now "emberfs@$odd.service" || fail "the service of an odd name does not start"
echo odd >'/mnt/my work-1/f' && mounted '/mnt/my.040work-1' || fail "the volume of an odd name is not there"
systemctl disable --now "emberfs@$odd.service" || fail "the service of an odd name does not stop"
odd="$(systemd-analyze verify emberfs@mnt-x.service mnt-work.mount mnt-work.automount 2>&1 | grep -v "Command 'man")"
[ -z "$odd" ] || fail "systemd-analyze: $odd"
mount -o remount,ro /mnt/slow || fail "remount"
touch /mnt/slow/g && fail "it is not read-only"
`)
	equal(t, m.pushed("git/work", "f"), "work\n", "the remote holds")
	equal(t, m.pushed("auto", "f"), "auto\n", "the remote holds")
	equal(t, m.pushed("odd", "f"), "odd\n", "the remote holds")
}

// copyUnit installs one of the package's sample units.
func (m *machine) copyUnit(name string) {
	m.t.Helper()
	check(m.t, copyFile(m.root+"/usr/share/doc/emberfs/examples/"+name, m.root+"/etc/systemd/system/"+name, 0o644))
}
