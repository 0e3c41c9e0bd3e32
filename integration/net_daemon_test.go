//go:build slow

package integration

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"emberfs/integration/gitserver"
)

// TestNetReadsGitDaemon: a volume that git daemon serves is there on another machine to be read; what is changed there
// has no way back, which is said at the start.
func TestNetReadsGitDaemon(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	s := gitserver.Daemon(t, serverDir(t))
	author := newVolume(t, "author").mount()
	author.write("f", "x")
	author.umount()
	bundle := filepath.Join(testDir(t), "bundle") // the server's account may not enter the volume's state
	must(t, "/", "git", "-C", author.cold(), "bundle", "create", "-q", bundle, "main")
	s.Git("fetch", "-q", bundle, "main:main")

	reader := remoteVolume(t, "reader", s, 0, withOpts("ro")).mount()
	wantFile(t, reader.at("f"), "x", "through git daemon:")
	reader.umount()
	writer := remoteVolume(t, "writer", s, 0)
	if r := writer.tryMount(); r.code != 2 || !strings.Contains(r.stderr, "git://") {
		t.Errorf("a mount for writing: want a usage error that names git://\n%v", r)
	}
}
