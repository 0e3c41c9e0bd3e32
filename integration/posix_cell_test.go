package integration

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// cell is one combination that the posix suite runs in.
type cell struct {
	dir    string // on the file system under test, belongs to the user
	as     user
	native bool
}

// posixtestCases are the cases of go-fuse's suite.
func posixtestCases(native bool) map[string]func(*testing.T, string) {
	all := maps.Clone(posixtest.All)
	// Upstream marks it as broken and leaves it out itself: it fails on any file system.
	delete(all, "FcntlFlockLocksFile")
	if native {
		// It tells /etc/passwd from the file under test by the device number, and a native directory may share that.
		delete(all, "OpenSymlinkRace")
	}
	return all
}

// caseNames lists what runs in a cell.
func (k cell) caseNames() []string {
	var names []string
	for n := range posixtestCases(k.native) {
		names = append(names, "go-fuse."+n)
	}
	for _, p := range posixCases() {
		if p.root && !k.as.isRoot() || p.mount && k.native {
			continue
		}
		names = append(names, p.name)
	}
	slices.Sort(names)
	return names
}

// prepare makes the directories of the cases, with the fixtures in them.
func (k cell) prepare(t testing.TB) {
	t.Helper()
	fixtures := map[string]bool{}
	for _, p := range posixCases() {
		fixtures[p.name] = p.fixture
	}
	create := func() error {
		for _, n := range k.caseNames() {
			dir := filepath.Join(k.dir, n)
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			if fixtures[n] {
				makeFixture(t, dir)
			}
		}
		return nil
	}
	if k.as.isRoot() {
		check(t, create())
	} else {
		check(t, asUser(k.as, create))
	}
}

// runCell is the body of the helper process: each case becomes a subtest.
func runCell(t *testing.T, dir string, names []string) {
	own := map[string]pcase{}
	for _, p := range posixCases() {
		own[p.name] = p
	}
	for _, n := range names {
		t.Run(n, func(t *testing.T) {
			sub := filepath.Join(dir, n)
			if up, ok := strings.CutPrefix(n, "go-fuse."); ok {
				posixtest.All[up](t, sub)
				return
			}
			own[n].run(&tc{T: t, dir: sub, root: os.Geteuid() == 0})
		})
	}
}

var caseLine = regexp.MustCompile(`(?m)^ *(=== RUN  |--- (?:PASS|FAIL|SKIP):) +Cell/([^ \n]+)`)

// run runs the cases of a cell in a process of the cell's user and makes each a subtest of t. A case that skips itself
// on the mount must skip itself on a native directory too.
func (k cell) run(t *testing.T, skipped map[string]bool) map[string]bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	names := k.caseNames()
	c := command{args: append([]string{env.self, k.dir}, names...), as: k.as,
		env: []string{helperVar + "=posix", "EMBERFS_TEST_SELF=" + env.self, "EMBERFS_SOAK=" +
			os.Getenv("EMBERFS_SOAK"), "TMPDIR=/tmp"}}
	cmd := c.prepare(ctx)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	runErr := cmd.Run()
	verdict, text := map[string]string{}, map[string]string{}
	marks := caseLine.FindAllStringSubmatchIndex(out.String(), -1)
	for i, m := range marks {
		end := out.Len()
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		name, kind := out.String()[m[4]:m[5]], out.String()[m[2]:m[3]]
		if kind != "=== RUN  " {
			verdict[name] = strings.Trim(kind, "- :")
		}
		text[name] += out.String()[m[0]:end]
	}
	now := map[string]bool{}
	for _, n := range names {
		now[n] = verdict[n] == "SKIP"
		t.Run(n, func(t *testing.T) {
			switch v := verdict[n]; {
			case v == "PASS" || v == "SKIP" && (k.native || skipped[n]):
			case v == "":
				t.Errorf("did not finish (%v)\n%s", runErr, clip(text[n]))
			default:
				t.Errorf("%s\n%s", v, clip(text[n]))
			}
		})
	}
	t.Logf("the slowest: %s", slowestCases(out.String()))
	if len(verdict) == 0 {
		t.Errorf("no case ran: %v\n%s", runErr, clip(out.String()))
	}
	return now
}

var caseTime = regexp.MustCompile(`(?m)^ *--- (?:PASS|FAIL|SKIP): Cell/([^ \n]+) \(([0-9.]+)s\)`)

// slowestCases tells where the time of a cell went: its cases' subtests are made up afterwards and take none.
func slowestCases(out string) string {
	all := caseTime.FindAllStringSubmatch(out, -1)
	slices.SortFunc(all, func(a, b []string) int {
		x, _ := strconv.ParseFloat(a[2], 64)
		y, _ := strconv.ParseFloat(b[2], 64)
		return cmp.Compare(y, x)
	})
	var s []string
	for _, m := range all[:min(10, len(all))] {
		s = append(s, m[1]+" "+m[2]+" s")
	}
	return strings.Join(s, ", ")
}

// native is what the suite skips on a native directory, by user: it is run there once.
var native struct {
	mu      sync.Mutex
	skipped map[uint32]map[string]bool
}

// nativeCell runs the suite on a native directory, unless another test has: what fails there is a wrong case.
func nativeCell(t *testing.T, as user) map[string]bool {
	t.Helper()
	native.mu.Lock()
	defer native.mu.Unlock()
	if done := native.skipped[as.uid]; done != nil {
		return done
	}
	var skipped map[string]bool
	t.Run(fmt.Sprintf("native/uid=%d", as.uid), func(t *testing.T) {
		k := cell{dir: mkdir(t, filepath.Join(testDir(t), "native"), as), as: as, native: true}
		k.prepare(t)
		skipped = k.run(t, nil)
	})
	if native.skipped == nil {
		native.skipped = map[uint32]map[string]bool{}
	}
	native.skipped[as.uid] = skipped
	return skipped
}
