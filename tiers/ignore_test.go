package tiers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

const ignoreBuild = "- {match: build/, ignore: true}\n- {match: '**/*.o', ignore: true}\n"

// committed lists the paths of the last commit.
func committed(t *testing.T, repo *memCold) []string {
	t.Helper()
	head, err := repo.Head(context.Background())
	must(t, err)
	if head == nil {
		return nil
	}
	var paths []string
	var dir func(at string, id cold.DirID)
	dir = func(at string, id cold.DirID) {
		l, err := head.ReadDir(context.Background(), id)
		must(t, err)
		for _, e := range l.Entries {
			paths = append(paths, at+e.Name)
			if e.Kind == cold.KindDir {
				dir(at+e.Name+"/", e.Dir())
			} else if e.Kind == cold.KindFile {
				if _, ok := repo.blobs[e.ID]; !ok {
					t.Errorf("%s%s is in the commit, its content %s is not in cold", at, e.Name, e.ID)
				}
			}
		}
	}
	root := head.Root()
	dir("", root.Dir())
	slices.Sort(paths)
	return paths
}

func wantCommitted(t *testing.T, cold *memCold, want ...string) {
	t.Helper()
	if got := committed(t, cold); !slices.Equal(got, want) {
		t.Fatalf("committed: %v\nwant:      %v", got, want)
	}
}

// settled syncs until the commit has what it should, for what is ignored comes back in the background first.
func settled(t *testing.T, v *Volume, cold *memCold, want ...string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		v.mustSync(t)
		if slices.Equal(committed(t, cold), want) {
			return
		}
	}
	t.Logf("errors: %q", v.Status().Errors)
	wantCommitted(t, cold, want...)
}

func TestIgnoredIsNeverCommitted(t *testing.T) {
	v, cold := newVolume(t)
	v.Start()
	must(t, v.SetRulesText([]byte(ignoreBuild)))
	write(t, v, v.Root(), "a", "one")
	write(t, v, v.Root(), "a.o", "object")
	b := mkdir(t, v, v.Root(), "build")
	write(t, v, mkdir(t, v, b, "sub"), "x", "built")
	v.mustSync(t)
	wantCommitted(t, cold, "a")
	if st := v.Status(); st.AtRisk.Files != 0 {
		t.Errorf("at risk after the commit: %+v", st.AtRisk)
	}
	write(t, v, b, "y", "built too")
	if st := v.Status(); st.AtRisk.Files != 0 || st.AtRisk.Bytes != 0 {
		t.Errorf("what is ignored is at risk: %+v", st.AtRisk)
	}
	if rc := v.mustSync(t); rc.New {
		t.Error("a commit for what is ignored")
	}
	// The rule goes: what it hid is committed.
	must(t, v.SetRulesText(nil))
	v.mustSync(t)
	wantCommitted(t, cold, "a", "a.o", "build", "build/sub", "build/sub/x", "build/y")
	// It comes back: what is committed leaves the commits, and stays in warm.
	must(t, v.SetRulesText([]byte(ignoreBuild)))
	settled(t, v, cold, "a")
	if got := read(t, v, mustFind(t, v, "build/sub/x")); got != "built" {
		t.Errorf("an ignored file reads %q", got)
	}
	must(t, v.Close())
}

// TestIgnoredStubsComeBack: files that are in cold only when a rule begins to ignore them are in warm before a commit
// drops them.
func TestIgnoredStubsComeBack(t *testing.T) {
	cold := newMemCold()
	state := t.TempDir()
	v := openTiered(t, state, cold)
	v.Start()
	b := mkdir(t, v, v.Root(), "build")
	content := strings.Repeat("built ", 5000)
	write(t, v, b, "x", content)
	write(t, v, mkdir(t, v, b, "deep"), "y.o", content+"y")
	write(t, v, v.Root(), "z.o", content+"z")
	write(t, v, v.Root(), "kept", content+"k")
	all := []string{"build", "build/deep", "build/deep/y.o", "build/x", "kept", "z.o"}
	v.mustSync(t)
	wantCommitted(t, cold, all...)
	mustTier(t, v)
	must(t, v.Close())

	// The next machine has nothing but lazy directories.
	v = openTiered(t, t.TempDir(), cold)
	v.Start()
	must(t, v.SetRulesText([]byte(ignoreBuild)))
	settled(t, v, cold, "kept")
	for at, want := range map[string]string{"build/x": content, "build/deep/y.o": content + "y", "z.o": content + "z"} {
		if warmBlocks(t, v, at) == 0 {
			t.Errorf("%s is in no commit and not in warm", at)
		}
		if got := read(t, v, mustFind(t, v, at)); got != want {
			t.Errorf("%s reads %d bytes, want %d", at, len(got), len(want))
		}
	}
	mustTier(t, v)
	if warmBlocks(t, v, "build/x") == 0 || warmBlocks(t, v, "z.o") == 0 {
		t.Error("an ignored file was released")
	}
	if warmBlocks(t, v, "kept") != 0 {
		t.Error("another was not")
	}
	must(t, v.Close())
}

// TestIgnoredBorder: what goes over the border of an ignored directory is safe on either side.
func TestIgnoredBorder(t *testing.T) {
	cold := newMemCold()
	v := openTiered(t, t.TempDir(), cold)
	v.Start()
	must(t, v.SetRulesText([]byte(ignoreBuild)))
	b := mkdir(t, v, v.Root(), "build")
	d := mkdir(t, v, v.Root(), "d")
	content := strings.Repeat("content ", 5000)
	f := write(t, v, d, "f", content)
	g := write(t, v, b, "g", content+"g")
	v.mustSync(t)
	wantCommitted(t, cold, "d", "d/f")
	mustTier(t, v)
	if warmBlocks(t, v, "d/f") != 0 {
		t.Fatal("not released")
	}
	// in: a stub comes back first, a directory is for mv to copy
	must(t, v.Rename(context.Background(), d, "f", b, "f", 0))
	if warmBlocks(t, v, "build/f") == 0 || f.stub.Load() {
		t.Error("a stub went where no commit has it")
	}
	if err := v.Rename(context.Background(), v.Root(), "d", b, "d", 0); !errors.Is(err, unix.EXDEV) {
		t.Errorf("a directory goes into an ignored one: %v", err)
	}
	if _, err := v.Link(context.Background(), g, d, "g"); !errors.Is(err, unix.EXDEV) {
		t.Errorf("a link over the border: %v", err)
	}
	if _, err := v.Link(context.Background(), g, b, "g2"); err != nil {
		t.Errorf("a link within: %v", err)
	}
	must(t, v.Unlink(context.Background(), b, "g2"))
	v.mustSync(t)
	wantCommitted(t, cold, "d")
	// out
	must(t, v.Rename(context.Background(), b, "f", d, "f", 0))
	must(t, v.Rename(context.Background(), b, "g", d, "g", 0))
	sub := mkdir(t, v, b, "sub")
	write(t, v, sub, "s", "s")
	must(t, v.Rename(context.Background(), b, "sub", d, "sub", 0))
	v.mustSync(t)
	wantCommitted(t, cold, "d", "d/f", "d/g", "d/sub", "d/sub/s")
	// a directory around it moves: the rule is about one place
	e := mkdir(t, v, v.Root(), "e")
	bb := mkdir(t, v, e, "build")
	write(t, v, bb, "x", "x")
	v.mustSync(t)
	wantCommitted(t, cold, "d", "d/f", "d/g", "d/sub", "d/sub/s", "e", "e/build", "e/build/x")
	must(t, v.SetRulesText([]byte("- {match: d/build/, ignore: true}\n")))
	must(t, v.Rename(context.Background(), v.Root(), "d", v.Root(), "o", 0))
	must(t, v.Rename(context.Background(), v.Root(), "e", v.Root(), "d", 0))
	settled(t, v, cold, "build", "d", "o", "o/f", "o/g", "o/sub", "o/sub/s")
	must(t, v.Rename(context.Background(), v.Root(), "d", v.Root(), "e", 0))
	v.mustSync(t)
	wantCommitted(t, cold, "build", "e", "e/build", "e/build/x", "o", "o/f", "o/g", "o/sub", "o/sub/s")
	must(t, v.Close())
}

// TestIgnoredStays: warm that follows a newer commit keeps what is ignored here.
func TestIgnoredStays(t *testing.T) {
	cold := newMemCold()
	state := t.TempDir()
	open := func(state string) *Volume {
		v := openTiered(t, state, cold)
		v.Start()
		return v
	}
	v := open(state)
	must(t, v.SetRulesText([]byte(ignoreBuild)))
	write(t, v, mkdir(t, v, v.Root(), "build"), "x", "built here")
	write(t, v, v.Root(), "a", "one")
	v.mustSync(t)
	must(t, v.Close())
	other := open(t.TempDir())
	write(t, other, other.Root(), "b", "two")
	other.mustSync(t)
	must(t, other.Close())
	v = open(state)
	if got := read(t, v, mustFind(t, v, "b")); got != "two" {
		t.Errorf("warm did not follow: %q", got)
	}
	if got := read(t, v, mustFind(t, v, "build/x")); got != "built here" {
		t.Errorf("what was ignored reads %q", got)
	}
	must(t, v.Close())
}

// TestRulesNeedConsent: rules of a repository that keep data out of commits are in effect only where somebody here said
// so.
func TestRulesNeedConsent(t *testing.T) {
	cold := newMemCold()
	v := openTiered(t, t.TempDir(), cold)
	text := ignoreBuild + "- {match: 'state/', class: critical}\n"
	must(t, v.SetRulesText([]byte(text)))
	write(t, v, v.Root(), "a", "one")
	v.mustSync(t)
	must(t, v.Close())

	state := t.TempDir()
	v = openTiered(t, state, cold)
	if s := v.Status(); s.RulesStatus.Withheld != 2 || len(s.Rules) != 1 ||
		!strings.HasPrefix(s.RulesStatus.From, "commit ") || string(v.RulesText()) != text {
		t.Errorf("of a repository: %+v %v", s.RulesStatus, s.Rules)
	}
	write(t, v, mkdir(t, v, v.Root(), "build"), "x", "x")
	v.mustSync(t)
	wantCommitted(t, cold, "a", "build", "build/x")
	must(t, v.Close())

	v = openTiered(t, state, cold, func(c *Config) { c.AcceptRules = true })
	if s := v.Status(); s.RulesStatus.Withheld != 0 || len(s.Rules) != 3 {
		t.Errorf("accepted: %+v %v", s.RulesStatus, s.Rules)
	}
	must(t, v.Close())
	v = openTiered(t, state, cold)
	must(t, v.SetRulesText([]byte(text))) // written here: that is consent, and stays
	must(t, v.Close())
	v = openTiered(t, state, cold)
	if s := v.Status(); s.RulesStatus.Withheld != 0 || s.RulesStatus.From != rulesHere {
		t.Errorf("written here: %+v", s.RulesStatus)
	}
	if err := v.SetRulesText([]byte("- match: [\n")); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a bad text: %v", err)
	}
	if s := v.Status(); len(s.Rules) != 3 || !slices.ContainsFunc(s.Errors, func(e string) bool {
		return strings.Contains(e, "rules")
	}) {
		t.Errorf("after a bad text: %v, errors %v", s.Rules, s.Errors)
	}
	must(t, v.Close())
}

// TestRulesKilledBetween: a kill between the notes that make new rules durable leaves the old or the new ones, agreed
// to.
func TestRulesKilledBetween(t *testing.T) {
	cold := newMemCold()
	v := openTiered(t, t.TempDir(), cold)
	old, text := []byte(ignoreBuild), []byte(ignoreBuild+"- {match: 'b/', ignore: true}\n")
	must(t, v.SetRulesText(old))
	before, err := os.ReadFile(filepath.Join(v.cfg.State, rulesName))
	must(t, err)
	must(t, v.SetRulesText(text))
	must(t, v.Close())
	for _, left := range [][]byte{before, text} {
		must(t, warm.WriteFileDurable(filepath.Join(v.cfg.State, rulesName), left, 0o600))
		v = openTiered(t, v.cfg.State, cold)
		if s := v.Status().RulesStatus; s.Withheld != 0 || s.From != rulesHere {
			t.Errorf("after a kill with %q: %+v", left, s)
		}
		must(t, v.Close())
	}
}

// TestRuleAges: a rule's warm_age decides when its files leave warm, longer or shorter than the volume's.
func TestRuleAges(t *testing.T) {
	cold := newMemCold()
	v := openTiered(t, t.TempDir(), cold, func(c *Config) {
		c.WarmAge, c.TierInterval = 300*time.Millisecond, 50*time.Millisecond
	})
	must(t, v.SetRulesText([]byte("- {match: stays, class: session, warm_age: none}\n- {match: later, class: "+
		"session, warm_age: 1h}\n- {match: soon/, class: session, warm_age: 100ms}\n")))
	content := strings.Repeat("content ", 2000)
	write(t, v, v.Root(), "stays", content)
	write(t, v, v.Root(), "later", content)
	write(t, v, v.Root(), "usual", content)
	write(t, v, mkdir(t, v, v.Root(), "soon"), "f", content)
	v.mustSync(t)
	v.Start()
	for end := time.Now().Add(20 * time.Second); warmBlocks(t, v, "usual") > 0 ||
		warmBlocks(t, v, "soon/f") > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("blocks in warm: %d and %d", warmBlocks(t, v, "usual"), warmBlocks(t, v, "soon/f"))
		}
	}
	if warmBlocks(t, v, "stays") == 0 || warmBlocks(t, v, "later") == 0 {
		t.Error("a file left warm before its rule says so")
	}
	must(t, v.Close())
}
