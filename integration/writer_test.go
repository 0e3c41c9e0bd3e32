package integration

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// helperWriter works in a directory until it gets an error, and notes before each operation what it is about to do and after
// it that it succeeded, in a log outside of the mount: "begin N op args" and "done N".
// Arguments: directory, log, seed.
func helperWriter(args []string) error {
	seed, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(args[1], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	w := writerState{dir: args[0], rnd: rand.New(rand.NewSource(seed)), tag: args[2]}
	if err := w.adopt(); err != nil {
		return err
	}
	for i := 0; ; i++ {
		op := w.next(i)
		if _, err := fmt.Fprintf(log, "begin %d %s\n", i, op); err != nil {
			return err
		}
		if err := applyOp(args[0], op); err != nil {
			if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EIO) {
				return nil // the daemon is gone
			}
			return fmt.Errorf("%s: %w", op, err)
		}
		if _, err := fmt.Fprintf(log, "done %d\n", i); err != nil {
			return err
		}
	}
}

// writerState chooses operations; it knows the names that exist.
type writerState struct {
	dir   string
	rnd   *rand.Rand
	tag   string
	names []string
}

func (w *writerState) adopt() error {
	es, err := os.ReadDir(w.dir)
	for _, e := range es {
		w.names = append(w.names, e.Name())
	}
	return err
}

func (w *writerState) next(i int) string {
	k := w.rnd.Intn(10)
	if len(w.names) < 20 {
		k = 0
	} else if len(w.names) > 200 {
		k = 9
	}
	at := 0
	if len(w.names) > 0 {
		at = w.rnd.Intn(len(w.names))
	}
	fresh := fmt.Sprintf("f-%s-%d", w.tag, i)
	switch {
	case k < 3:
		w.names = append(w.names, fresh)
		return fmt.Sprintf("create %s %d", fresh, w.rnd.Intn(20_000))
	case k < 6:
		return fmt.Sprintf("append %s %d", w.names[at], 1+w.rnd.Intn(9000))
	case k == 6:
		return fmt.Sprintf("overwrite %s %d", w.names[at], 1+w.rnd.Intn(3000))
	case k == 7:
		old := w.names[at]
		w.names[at] = fresh
		return fmt.Sprintf("rename %s %s", old, fresh)
	case k == 8:
		to := w.rnd.Intn(len(w.names))
		if to == at {
			return fmt.Sprintf("append %s %d", w.names[at], 1)
		}
		old, over := w.names[at], w.names[to]
		w.names = append(w.names[:at], w.names[at+1:]...)
		return fmt.Sprintf("rename %s %s", old, over)
	default:
		gone := w.names[at]
		w.names = append(w.names[:at], w.names[at+1:]...)
		return "unlink " + gone
	}
}

// opBytes is what an operation writes: it follows from the operation alone.
func opBytes(op string, n int) []byte {
	h := int64(0)
	for _, c := range op {
		h = h*131 + int64(c)
	}
	b := make([]byte, n)
	rand.New(rand.NewSource(h)).Read(b)
	return b
}

func applyOp(dir, op string) error {
	f := strings.Fields(op)
	path := filepath.Join(dir, f[1])
	write := func(flags int) error {
		n, err := strconv.Atoi(f[2])
		if err != nil {
			return err
		}
		fd, err := unix.Open(path, flags|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		for b := opBytes(op, n); len(b) > 0 && err == nil; {
			n, err = unix.Write(fd, b) // a short write acknowledges what it wrote
			b = b[max(n, 0):]
		}
		if cerr := unix.Close(fd); err == nil {
			err = cerr
		}
		return err
	}
	switch f[0] {
	case "create":
		return write(unix.O_CREAT | unix.O_EXCL)
	case "append":
		return write(unix.O_APPEND)
	case "overwrite":
		return write(0)
	case "rename":
		return unix.Rename(path, filepath.Join(dir, f[2]))
	default:
		return unix.Unlink(path)
	}
}

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

// settle compares a directory with the model. The one operation that was not acknowledged may show or not, a write in part;
// what is seen of it becomes the model.
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
