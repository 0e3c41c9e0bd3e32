package integration

import (
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// helperWriter works in a directory until it gets an error, and notes before each operation what it is about to do and
// after it that it succeeded, in a log outside of the mount: "begin N op args" and "done N". Arguments: directory, log,
// seed.
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
			if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.ENOENT) ||
				errors.Is(err, unix.EIO) {
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
