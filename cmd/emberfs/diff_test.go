package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// oddEdits changes a work tree in all the ways that a patch has to express.
const oddEdits = `
printf 'a\nB\nc\n' >plain; printf 'no end' >noend; printf 'end\n' >end
: >empty; rm gone; rm emptied; : >emptied
chmod +x exec; chmod -x unexec; echo more >>both; chmod +x both
ln -sfn elsewhere link; rm tofile; echo file >tofile; rm tolink; ln -s x tolink
rm -r todir; mkdir todir; echo in >todir/file; rm -r fromdir; echo f >fromdir
mv 'with space' 'with other space'; echo x >>"$(printf 'new\nline')"; echo x >>"$(printf 'lat\351')"; echo x >>'q"uo\te'; echo x >>"$(printf 'tab\there')"
echo x >>'ümlaut'; printf 'lat\351n\nx\n' >latin; mkdir -p deep/er; echo n >deep/er/n
seq 1 400 | sed '10,20d; 200s/.*/changed/; 390i\
inserted' >long
`

const oddBase = `
printf 'a\nb\nc\n' >plain; printf 'end\n' >noend; printf 'no end' >end
echo gone >gone; echo x >emptied
echo x >exec; echo x >unexec; chmod +x unexec; echo b >both
ln -s somewhere link; ln -s x tofile; echo file >tolink
echo f >todir; mkdir fromdir; echo in >fromdir/file
echo s >'with space'; echo n >"$(printf 'new\nline')"; echo l >"$(printf 'lat\351')"; echo q >'q"uo\te'; echo t >"$(printf 'tab\there')"
echo u >'ümlaut'; printf 'lat\351n\n' >latin; seq 1 400 >long
`

// TestDiffApplies checks that stock git, applying our patch, turns the old state into exactly the new one.
func TestDiffApplies(t *testing.T) {
	repo := stockRepo(t, oddBase, oddEdits)
	code, patch, errs := emberfs(t, "diff", repo)
	if code != 0 || errs != "" {
		t.Fatalf("exit %d: %s", code, errs)
	}
	applies(t, repo, patch)
	code, patch, errs = emberfs(t, "diff", repo, "HEAD", "HEAD~1")
	if code != 0 || errs != "" {
		t.Fatalf("exit %d: %s", code, errs)
	}
	gitIn(t, repo, "checkout", "-q", "-b", "back", "main")
	gitIn(t, repo, "apply", "--index", "-", patch)
	gitIn(t, repo, "diff", "--cached", "--exit-code", "main~1")
}

// gitIn runs stock git in dir. If the last argument but one is "-", the last one is its input.
func gitIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	if n := len(args); n > 1 && args[n-2] == "-" {
		cmd = exec.Command("git", args[:n-1]...)
		cmd.Stdin = strings.NewReader(args[n-1])
	}
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func applies(t *testing.T, repo, patch string) {
	t.Helper()
	gitIn(t, repo, "checkout", "-q", "-B", "try", "main~1")
	gitIn(t, repo, "apply", "--index", "--whitespace=nowarn", "-", patch)
	gitIn(t, repo, "diff", "--cached", "--exit-code", "main")
	gitIn(t, repo, "checkout", "-q", "-f", "main")
}

// TestDiffTexts compares random texts, long and short, with and without a newline at the end.
func TestDiffTexts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	repo := stockRepo(t, "mkdir d; : >d/keep", ": >d/other")
	text := func() string {
		var b strings.Builder
		for range r.IntN(1 << r.IntN(9)) {
			fmt.Fprintf(&b, "%d\xff\n", r.IntN(6))
		}
		return strings.TrimSuffix(b.String(), strings.Repeat("\n", r.IntN(2)))
	}
	for _, rev := range []string{"main~1", "main"} {
		gitIn(t, repo, "checkout", "-q", "-B", "work", rev)
		for i := range 150 {
			noError(t, os.WriteFile(filepath.Join(repo, "d", fmt.Sprint(i)), []byte(text()), 0o644))
		}
		gitIn(t, repo, "add", "-A")
		gitIn(t, repo, "-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "m")
		gitIn(t, repo, "tag", strings.ReplaceAll(rev, "~1", "")+"text"+fmt.Sprint(len(rev)))
	}
	code, patch, errs := emberfs(t, "diff", repo, "maintext6", "maintext4")
	if code != 0 || errs != "" {
		t.Fatalf("exit %d: %s", code, errs)
	}
	gitIn(t, repo, "checkout", "-q", "maintext6")
	gitIn(t, repo, "apply", "--index", "--whitespace=nowarn", "-", patch)
	gitIn(t, repo, "diff", "--cached", "--exit-code", "maintext4")
}

func TestDiffOutputs(t *testing.T) {
	repo := stockRepo(t, oddBase, oddEdits+"printf 'a\\0b' >bin; rm plain; echo 1 >'a b'",
		"printf 'a\\0c' >bin; echo 2 >>'a b'; chmod +x 'a b'; rm -r deep; ln -sfn new link")
	code, out, errs := emberfs(t, "diff", repo)
	want := "diff --git a/a b b/a b\nold mode 100644\nnew mode 100755\n--- a/a b\t\n+++ b/a b\t\n@@ -1 +1,2 @@\n " +
		"1\n+2\n" +
		"diff --git a/bin b/bin\nBinary files a/bin and b/bin differ\n" +
		"= deep/: deleted directory\n= deep/er/: deleted directory\n" +
		"diff --git a/deep/er/n b/deep/er/n\ndeleted file mode 100644\n--- a/deep/er/n\n+++ /dev/null\n@@ -1 +0,0 " +
		"@@\n-n\n" +
		"diff --git a/link b/link\n--- a/link\n+++ b/link\n@@ -1 +1 @@\n-elsewhere\n\\ No newline at end of " +
		"file\n+new\n\\ No newline at end of file\n"
	if code != 0 || out != want || errs != "" {
		t.Errorf("exit %d, %s\ngot\n%s\nwant\n%s", code, errs, out, want)
	}
	code, out, _ = emberfs(t, "diff", repo, "--name-only")
	if want := "M\ta b\nM\tbin\nD\tdeep/\nD\tdeep/er/\nD\tdeep/er/n\nM\tlink\n"; code != 0 || out != want {
		t.Errorf("--name-only: exit %d\n%s", code, out)
	}
	code, out, _ = emberfs(t, "diff", repo, "--stat", "HEAD~1", "HEAD", "--", "a b", "bin", "link")
	if want := " M a b | +1 -0\n M bin | Bin 3 -> 3 bytes\n M link | +1 -1\n 3 paths changed, 2 insertions(+), 1 " +
		"deletion(-)\n"; code != 0 || out != want {
		t.Errorf("--stat: exit %d\n%s", code, out)
	}
	code, out, _ = emberfs(t, "diff", repo, "HEAD~2", "--json")
	var list []changeReply
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
		t.Fatalf("--json: exit %d, %v\n%s", code, err, out)
	}
	seen := map[string]changeReply{}
	for _, c := range list {
		seen[c.Path+string(c.Path64)] = c
	}
	if c := seen["lat\xe9"]; c.Status != "M" || c.Path != "" || c.Old.Size != 2 || c.New.Size != 4 ||
		c.Old.ID == c.New.ID {
		t.Errorf("lat\\xe9: %+v", c)
	}
	if c := seen["todir"]; c.Status != "T" || c.Old.Type != "file" || c.New.Type != "dir" || c.Old.Mode != "0644" {
		t.Errorf("todir: %+v", c)
	}
	if code, out, _ := emberfs(t, "diff", repo, "HEAD", "HEAD", "--json"); code != 0 || out != "[]\n" {
		t.Errorf("no difference: exit %d, %q", code, out)
	}
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{exitUsage, "one commit too many", []string{"diff", repo, "a", "b", "c"}},
		{exitUsage, "has no directory to compare with", []string{"diff", repo, "now"}},
		{exitUsage, "name it as TO", []string{"diff", repo, "now", "HEAD"}},
		{exitUsage, "none of the others can be", []string{"diff", repo, "--stat", "--json"}},
		{exitFailed, "write -- before paths", []string{"diff", repo, "plain"}},
		{exitUsage, "no mountpoint, state directory or repository", []string{"diff", "/nonexistent"}},
		{exitFailed, "lies in no mounted volume", []string{"diff"}},
	} {
		code, out, errs := emberfs(t, c.args...)
		if code != c.code || !strings.Contains(errs, c.want) || out != "" || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: exit %d, %q, %q; want exit %d, %q", c.args, code, out, errs, c.code, c.want)
		}
	}
}
