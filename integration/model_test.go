//go:build slow

package integration

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// model is what a directory must hold after the operations of a writer's log.
type model struct {
	files   map[string][]byte
	unsure  string // the operation that was begun and never acknowledged: it may have happened, or in part
	applied int
}

func newModel() *model { return &model{files: map[string][]byte{}} }

func (m *model) apply(op string) {
	f := strings.Fields(op)
	name := f[1]
	switch f[0] {
	case "create":
		n, _ := strconv.Atoi(f[2])
		m.files[name] = opBytes(op, n)
	case "append":
		n, _ := strconv.Atoi(f[2])
		m.files[name] = append(m.files[name][:len(m.files[name]):len(m.files[name])], opBytes(op, n)...)
	case "overwrite":
		n, _ := strconv.Atoi(f[2])
		b := append([]byte{}, m.files[name]...)
		if len(b) < n {
			b = append(b, make([]byte, n-len(b))...)
		}
		copy(b, opBytes(op, n))
		m.files[name] = b
	case "rename":
		m.files[f[2]] = m.files[name]
		delete(m.files, name)
	default:
		delete(m.files, name)
	}
}

// replay applies what a log acknowledges.
func (m *model) replay(t testing.TB, logFile string) {
	t.Helper()
	f, err := os.Open(logFile)
	check(t, err)
	defer f.Close()
	m.unsure = ""
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if op, ok := strings.CutPrefix(sc.Text(), "begin "); ok {
			_, m.unsure, _ = strings.Cut(op, " ")
		} else {
			m.apply(m.unsure)
			m.unsure = ""
			m.applied++
		}
	}
}

// settle compares a directory with the model. The one operation that was not acknowledged may show or not, a write in
// part; what is seen of it becomes the model.
func (m *model) settle(t testing.TB, dir string) {
	t.Helper()
	got := map[string][]byte{}
	es, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range es {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		check(t, err)
		got[e.Name()] = b
	}
	if diff := difference(got, m.files); diff != "" {
		if m.unsure == "" {
			t.Fatalf("acknowledged, but not there: %s", diff)
		}
		after := newModel()
		for k, v := range m.files {
			after.files[k] = v
		}
		after.apply(m.unsure)
		f := strings.Fields(m.unsure)
		if f[0] == "create" || f[0] == "append" || f[0] == "overwrite" {
			if have, ok := got[f[1]]; ok && partOf(have, m.files[f[1]], after.files[f[1]]) {
				after.files[f[1]] = have
			}
		}
		if d := difference(got, after.files); d != "" {
			t.Fatalf("acknowledged, but not there: %s; with %q, which was under way: %s", diff, m.unsure, d)
		}
	}
	m.files, m.unsure = got, ""
}

// partOf says that each byte of have is as before or as after the write.
func partOf(have, before, after []byte) bool {
	if len(have) < len(before) || len(have) > len(after) {
		return false
	}
	for i, c := range have {
		if c != after[i] && (i >= len(before) || c != before[i]) {
			return false
		}
	}
	return true
}

func difference(got, want map[string][]byte) string {
	for n, w := range want {
		if g, ok := got[n]; !ok {
			return n + " is missing"
		} else if string(g) != string(w) {
			return fmt.Sprintf("%s holds %d bytes, not the %d that were written", n, len(g), len(w))
		}
	}
	for n := range got {
		if _, ok := want[n]; !ok {
			return n + " should be gone"
		}
	}
	return ""
}
