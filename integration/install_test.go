//go:build slow

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestInstall installs into an empty root twice, and takes it away again: the second time changes nothing, and what
// others have put there stays.
func TestInstall(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	root := filepath.Join(testDir(t), "root")
	install := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(env.module, "scripts/install"), args...)
		cmd.Env = append(os.Environ(), "DESTDIR="+root) // and the developer's own build cache
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("scripts/install %v: %v\n%s", args, err, out)
		}
	}
	list := func() string {
		return must(t, root, "sh", "-c", `find . -printf '%P %y %m %l\n' | LC_ALL=C sort`)
	}
	install("--uninstall") // there is nothing yet
	install()
	first := list()
	for _, path := range []string{"usr/local/bin/emberfs f 755", "sbin/mount.fuse.emberfs l 777 /usr/local/bin/emberfs",
		"sbin/umount.emberfs l 777", "usr/local/share/man/man8/emberfs-mount.8 f 644",
		"usr/local/lib/systemd/system/emberfs@.service f 644", "etc/emberfs d 755",
		"usr/local/share/bash-completion/completions/emberfs f 644",
		"usr/local/share/zsh/site-functions/_emberfs f 644",
		"usr/local/share/fish/vendor_completions.d/emberfs.fish f 644"} {
		if !strings.Contains("\n"+first, "\n"+path) {
			t.Errorf("there is no %s in\n%s", path, first)
		}
	}
	// What an earlier version had, and this one has not, goes with the next installation.
	manifest := filepath.Join(root, "usr/local/share/emberfs/installed")
	gone := filepath.Join(root, "usr/local/share/man/man8/emberfs-gone.8")
	check(t, os.WriteFile(gone, nil, 0o644))
	f, err := os.OpenFile(manifest, os.O_APPEND|os.O_WRONLY, 0)
	check(t, err)
	_, err = f.WriteString("file /usr/local/share/man/man8/emberfs-gone.8\n")
	check(t, err)
	check(t, f.Close())
	install()
	equal(t, list(), first, "after the second installation there is")

	for path, content := range map[string]string{"etc/emberfs/mnt-work.yaml": "source: /x\n",
		"var/lib/emberfs/work/lock": "", "usr/local/bin/other": "#!/bin/sh\n"} {
		check(t, os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755))
		check(t, os.WriteFile(filepath.Join(root, path), []byte(content), 0o644))
	}
	check(t, os.Remove(filepath.Join(root, "sbin/mount.emberfs")))
	check(t, os.Symlink("/opt/emberfs", filepath.Join(root, "sbin/mount.emberfs"))) // somebody else's by now
	wants := filepath.Join(root, "etc/systemd/system/remote-fs.target.wants")       // what systemctl enable makes
	check(t, os.MkdirAll(wants, 0o755))
	check(t, os.Symlink("/usr/local/lib/systemd/system/emberfs@.service",
		filepath.Join(wants, "emberfs@mnt-my\\x20work.service")))
	install("--uninstall")
	equal(t, must(t, root, "sh", "-c", `find . ! -type d -printf '%P\n' | LC_ALL=C sort`),
		"etc/emberfs/mnt-work.yaml\nsbin/mount.emberfs\nusr/local/bin/other\nvar/lib/emberfs/work/lock\n", "what is left:")
	if _, err := os.Stat(filepath.Join(root, "usr/local/share")); err == nil {
		t.Error("empty directories are left:\n" + list())
	}
}
