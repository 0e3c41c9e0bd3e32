package backup

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"emberfs/backup/coldtest"
	"emberfs/integration/gitserver"
	"emberfs/tiers/cold"
)

// BenchmarkPush pushes one changed file of 100,000 after 3,000 commits, beside `git push` of such a commit and beside
// the work that the server has with it in any case: to a path, to nginx and to sshd, also over a link with a round trip
// of 20 ms, and where the server has 10,000 references. The figures are medians in milliseconds. It needs root.
func BenchmarkPush(b *testing.B) {
	dir, err := os.MkdirTemp("/tmp", "push") // all users must be able to pass
	coldtest.Check(b, err)
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	coldtest.Check(b, os.Chmod(dir, 0o755))
	model := filepath.Join(b.TempDir(), "model.git")
	fillRemote(b, model, 100_000)
	grow(b, model, 3000)
	web := gitserver.HTTP(b, filepath.Join(dir, "http"), gitserver.HTTPOptions{BodyLimit: "0"})
	shell := gitserver.SSH(b, filepath.Join(dir, "ssh"), false)
	path := filepath.Join(dir, "path.git")
	for _, c := range []struct {
		kind   string
		server *gitserver.Server
		delay  time.Duration
		refs   int
	}{{"path", nil, 0, 0}, {"http", web.Server, 0, 0}, {"ssh", shell.Server, 0, 0},
		{"http+20ms", web.Server, 10 * time.Millisecond, 0}, {"ssh+20ms", shell.Server, 10 * time.Millisecond, 0},
		{"http+10000refs", web.Server, 0, 10_000}, {"ssh+10000refs", shell.Server, 0, 10_000}} {
		b.Run(c.kind, func(b *testing.B) {
			repo, source := path, path
			if c.server != nil {
				link := gitserver.NewLink(b, c.server.Addr(), 1)
				link.Delay(c.delay)
				repo, source = c.server.Repo, c.server.SourceBy(link.Port())
				for _, kv := range c.server.Env {
					name, value, _ := strings.Cut(kv, "=")
					b.Setenv(name, value)
				}
			}
			owner := "root"
			if c.server != nil {
				owner = run(b, "", "stat", "-c", "%U", repo)
			}
			run(b, "", "rm", "-rf", repo)
			run(b, "", "git", "clone", "-q", "--bare", "--no-hardlinks", model, repo)
			run(b, repo, "git", "config", "http.receivepack", "true")
			if c.refs > 0 {
				tip, list := run(b, repo, "git", "rev-parse", "main"), ""
				for i := range c.refs {
					list += fmt.Sprintf("create refs/heads/side/%d %s\n", i, tip)
				}
				cmd := exec.Command("git", "update-ref", "--stdin")
				cmd.Dir, cmd.Stdin = repo, strings.NewReader(list)
				if out, err := cmd.CombinedOutput(); err != nil {
					b.Fatal(err, string(out))
				}
				run(b, repo, "git", "pack-refs", "--all")
			}
			run(b, "", "chown", "-R", owner, repo)
			pushes(b, source, repo, owner)
		})
	}
}

// pushes measures one way to push.
func pushes(b *testing.B, source, repo, owner string) {
	c, err := Open(filepath.Join(b.TempDir(), "cold.git"), Options{Source: source})
	coldtest.Check(b, err)
	defer c.Close()
	coldtest.Check(b, c.Fetch(b.Context()))
	coldtest.Check(b, c.Push(b.Context()))
	var ours, theirs, server []time.Duration
	took := func(list *[]time.Duration, work func()) {
		start := time.Now()
		work()
		*list = append(*list, time.Since(start))
	}
	for i := 0; b.Loop(); i++ {
		old, err := c.Tip()
		coldtest.Check(b, err)
		oneChange(b, c, i)
		tip, err := c.Tip()
		coldtest.Check(b, err)
		switch i % 3 {
		case 0:
			took(&ours, func() { coldtest.Check(b, c.Push(b.Context())) })
			continue
		case 1:
			took(&theirs, func() { run(b, c.db.Dir(), "git", "push", "-q", source, "main") })
		case 2:
			request := receiveRequest(b, c.db.Dir(), old.String(), tip.String())
			took(&server, func() { receive(b, repo, owner, request) })
		}
		coldtest.Check(b, c.Push(b.Context()))
	}
	for name, list := range map[string][]time.Duration{"ours": ours, "git-push": theirs, "server": server} {
		slices.Sort(list)
		b.ReportMetric(float64(list[len(list)/2].Microseconds())/1000, name+"-ms")
	}
}

func run(b *testing.B, dir, program string, args ...string) string {
	b.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%s %v: %v: %s", program, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// grow adds commits without changes.
func grow(b *testing.B, remote string, n int) {
	b.Helper()
	var in strings.Builder
	for i := range n {
		from := ""
		if i == 0 {
			from = "from " + run(b, remote, "git", "rev-parse", "main") + "\n"
		}
		fmt.Fprintf(&in, "commit refs/heads/main\ncommitter x <x@x> %d +0000\ndata 1\nx\n%s\n", 1_700_000_000+i, from)
	}
	cmd := exec.Command("git", "fast-import", "--quiet", "--force")
	cmd.Dir, cmd.Stdin = remote, strings.NewReader(in.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatal(err, string(out))
	}
}

// oneChange commits a change of one file.
func oneChange(b *testing.B, c *Cold, i int) {
	b.Helper()
	ctx := context.Background()
	x, err := c.Begin(ctx)
	coldtest.Check(b, err)
	defer x.Abort()
	root := x.Base().Root()
	l, err := x.Base().ReadDir(ctx, root.Dir())
	coldtest.Check(b, err)
	dir := l.Entries[i%len(l.Entries)]
	data := fmt.Appendf(nil, "changed %d %d\n", i, time.Now().UnixNano())
	e := cold.Entry{Name: "file1", Kind: cold.KindFile, Mode: 0o644, Mtime: cold.Time{Sec: 1e9}, Size: int64(len(data))}
	e.ID, err = x.PutFile(ctx, coldtest.Content(data), cold.Base{})
	coldtest.Check(b, err)
	d, err := x.PutDir(ctx, dir.Dir(), false, nil, []cold.Entry{e}, nil)
	coldtest.Check(b, err)
	dir.ID, dir.Meta = d.Tree, d.Meta
	d, err = x.PutDir(ctx, root.Dir(), false, &cold.Root{Entry: root}, []cold.Entry{dir}, nil)
	coldtest.Check(b, err)
	if _, err := x.Commit(ctx, cold.CommitOptions{Root: d}); err != nil {
		b.Fatal(err)
	}
}

// receiveRequest is what a client sends to git receive-pack to move the branch again.
func receiveRequest(b *testing.B, dir, old, tip string) string {
	b.Helper()
	cmd := exec.Command("git", "pack-objects", "--revs", "--stdout", "--thin", "-q", "--delta-base-offset")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(tip+"\n^"+old+"\n")
	pack, err := cmd.Output()
	coldtest.Check(b, err)
	line := old + " " + tip + " refs/heads/main\x00 report-status side-band-64k agent=x"
	return fmt.Sprintf("%04x%s0000%s", len(line)+4, line, pack)
}

// receive has the server's account do the work of a request.
func receive(b *testing.B, repo, owner, request string) {
	b.Helper()
	cmd := exec.Command("setpriv", "--reuid="+owner, "--clear-groups", "git", "receive-pack", "--stateless-rpc", repo)
	cmd.Stdin = strings.NewReader(request)
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), "ok refs/heads/main") {
		b.Fatalf("%v: %q", err, out)
	}
}
