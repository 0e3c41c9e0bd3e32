package backup

import (
	"context"
	"fmt"
	"net/http/cgi"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// BenchmarkPush pushes one changed file of 100,000 after 3,000 commits, beside `git push` of the same and beside the
// work that the server has with it in any case, to a path and over HTTP. The figures are medians in milliseconds.
func BenchmarkPush(b *testing.B) {
	remote := filepath.Join(b.TempDir(), "remote.git")
	fillRemote(b, remote, 100_000)
	grow(b, remote, 3000)
	git, err := exec.LookPath("git")
	coldtest.Check(b, err)
	web := httptest.NewServer(&cgi.Handler{Path: git, Args: []string{"-c", "safe.directory=*", "-c",
		"http.receivepack=true", "http-backend"}, Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(remote),
		"GIT_HTTP_EXPORT_ALL=1"}, InheritEnv: []string{"PATH"}})
	defer web.Close()
	for _, source := range []string{remote, web.URL + "/remote.git"} {
		kind := "path"
		if source != remote {
			kind = "http"
		}
		b.Run(kind, func(b *testing.B) {
			stock := filepath.Join(b.TempDir(), "stock.git")
			run(b, "", "git", "clone", "-q", "--bare", remote, stock)
			run(b, stock, "git", "config", "remote.origin.url", source)
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
				if i%2 == 0 {
					took(&ours, func() { coldtest.Check(b, c.Push(b.Context())) })
				} else { // the server alone, with the same input
					tip, err := c.Tip()
					coldtest.Check(b, err)
					request := receiveRequest(b, c.db.Dir(), old.String(), tip.String())
					took(&server, func() { receive(b, remote, request) })
					coldtest.Check(b, c.Push(b.Context()))
				}
				stockChange(b, stock, "stock", i)
				took(&theirs, func() { run(b, stock, "git", "push", "-q", "origin", "stock:stock") })
			}
			for name, list := range map[string][]time.Duration{"ours": ours, "git-push": theirs, "server": server} {
				slices.Sort(list)
				b.ReportMetric(float64(list[len(list)/2].Microseconds())/1000, name+"-ms")
			}
		})
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
	run(b, remote, "git", "branch", "-q", "stock", "main")
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

// stockChange does the same by git on another branch.
func stockChange(b *testing.B, dir, branch string, i int) {
	b.Helper()
	script := fmt.Sprintf(`b=%s; d=$(git ls-tree --name-only $b | grep dir | sed -n %d'p')
		blob=$(echo changed %d %d | git hash-object -w --stdin)
		sub=$(git ls-tree $b:"$d" | sed "s/blob [0-9a-f]*\tfile1$/blob $blob\tfile1/" | git mktree)
		top=$(git ls-tree $b | sed "s/tree [0-9a-f]*\t$d$/tree $sub\t$d/" | git mktree)
		tip=$(echo x | git -c user.name=x -c user.email=x commit-tree -p $b "$top")
		git update-ref refs/heads/$b "$tip"`, branch, i%50+1, i, time.Now().UnixNano())
	run(b, dir, "sh", "-euc", script)
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

// receive has a server do its work with a request.
func receive(b *testing.B, remote, request string) {
	b.Helper()
	cmd := exec.Command("git", "receive-pack", "--stateless-rpc", remote)
	cmd.Stdin = strings.NewReader(request)
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), "ok refs/heads/main") {
		b.Fatalf("%v: %q", err, out)
	}
}
