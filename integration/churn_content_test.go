//go:build slow

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"runtime/debug"
	"slices"

	"golang.org/x/sys/unix"
)

func writeAll(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, off)
		if err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// withFD opens, works and closes; the error of close counts.
func withFD(at string, flags int, f func(fd int) error) error {
	fd, err := unix.Open(at, flags|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	err = f(fd)
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}

// change writes to a file by its name.
func (w *churn) change() cop {
	p, n := w.pick(unix.S_IFREG)
	if n == nil {
		return w.create()
	}
	c := w.edit(n)
	flags := unix.O_RDWR
	switch k := w.rnd.Intn(10); {
	case k < 2:
		return w.rewrite(p)
	case k < 4:
		size := int64(w.newSize(n))
		return cop{what: fmt.Sprintf("truncate %s to %d", p, size), touched: []string{p}, run: func() error {
			return unix.Truncate(w.at(p), size)
		}, apply: func(t *cnode) { setSize(t.at(p), int(size)) }}
	case k == 4:
		flags |= unix.O_SYNC
	}
	return cop{
		what: c.what + " " + p, touched: []string{p}, part: p,
		run:   func() error { return withFD(w.at(p), flags, c.run) },
		apply: func(t *cnode) { t.at(p).data = slices.Clone(c.after) },
	}
}

func (w *churn) rewrite(p string) cop {
	b := w.bytes(w.size())
	return cop{
		what: fmt.Sprintf("rewrite %s with %d bytes", p, len(b)), touched: []string{p}, part: p, prefix: true,
		run: func() error {
			return withFD(w.at(p), unix.O_WRONLY|unix.O_TRUNC, func(fd int) error { return writeAll(fd, b, 0) })
		},
		apply: func(t *cnode) { t.at(p).data = b },
	}
}

func (w *churn) newSize(n *cnode) int {
	switch w.rnd.Intn(4) {
	case 0:
		return 0
	case 1:
		return w.size()
	}
	return w.rnd.Intn(len(n.data) + 1)
}

func setSize(n *cnode, size int) {
	b := make([]byte, size)
	copy(b, n.data)
	n.data = b
}

// edit is a change of a file's bytes through a descriptor.
type edit struct {
	what  string
	after []byte
	run   func(fd int) error
}

func (w *churn) edit(n *cnode) edit {
	size := len(n.data)
	off := w.rnd.Intn(size + 1)
	b := w.bytes(1 + w.rnd.Intn(9000))
	put := func(off int, b []byte) []byte {
		after := make([]byte, max(size, off+len(b)))
		copy(after, n.data)
		copy(after[off:], b)
		return after
	}
	length := 1 + w.rnd.Intn(20_000)
	switch k := w.rnd.Intn(12); {
	case k < 3: // append
		return edit{fmt.Sprintf("append %d at %d", len(b), size), put(size, b), func(fd int) error {
			return writeAll(fd, b, int64(size))
		}}
	case k == 3: // beyond the end
		off = size + w.rnd.Intn(100_000)
		return edit{fmt.Sprintf("write %d far off at %d", len(b), off), put(off, b), func(fd int) error {
			return writeAll(fd, b, int64(off))
		}}
	case k == 4:
		return edit{fmt.Sprintf("fallocate %d at %d", length, off),
			put(off, append(slices.Clone(n.data[off:]), make([]byte, max(0, length-(size-off)))...)),
			func(fd int) error { return unix.Fallocate(fd, 0, int64(off), int64(length)) }}
	case k == 5 && size > 0:
		end := min(size, off+length)
		after := slices.Clone(n.data)
		clear(after[off:end])
		return edit{fmt.Sprintf("punch %d at %d", length, off), after, func(fd int) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(length))
		}}
	case k == 6:
		to := w.newSize(n)
		after := make([]byte, to)
		copy(after, n.data)
		return edit{fmt.Sprintf("ftruncate to %d", to), after, func(fd int) error {
			return unix.Ftruncate(fd, int64(to))
		}}
	case k < 9 && size > 0:
		b = b[:min(len(b), size-min(off, size-1))]
		off = min(off, size-1)
		return edit{fmt.Sprintf("map and write %d at %d", len(b), off), put(off, b), func(fd int) error {
			return mapWrite(fd, size, off, b)
		}}
	}
	return edit{fmt.Sprintf("write %d at %d", len(b), off), put(off, b), func(fd int) error {
		err := writeAll(fd, b, int64(off))
		if err == nil && w.rnd.Intn(10) == 0 {
			err = unix.Fdatasync(fd)
		}
		return err
	}}
}

// mapWrite writes through a mapping. When the daemon dies under it, the fault comes back as an error.
func mapWrite(fd, size, off int, b []byte) (err error) {
	m, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer func() {
		if uerr := unix.Munmap(m); err == nil {
			err = uerr
		}
	}()
	defer faults(&err)()
	copy(m[off:], b)
	return unix.Msync(m, unix.MS_SYNC)
}

// faults turns a fault in mapped memory into an error: for one goroutine, until what it gives is called.
func faults(err *error) func() {
	was := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(was)
		if r := recover(); r != nil {
			*err = fmt.Errorf("fault in a mapping: %v", r)
		}
	}
}

func (w *churn) copyRange() cop {
	from, src := w.pick(unix.S_IFREG)
	to, dst := w.pick(unix.S_IFREG)
	if src == nil || src == dst || len(src.data) == 0 {
		return w.create()
	}
	offIn := w.rnd.Intn(len(src.data))
	length := 1 + w.rnd.Intn(len(src.data)-offIn)
	offOut := w.rnd.Intn(len(dst.data) + 1)
	after := make([]byte, max(len(dst.data), offOut+length))
	copy(after, dst.data)
	copy(after[offOut:], src.data[offIn:offIn+length])
	return cop{
		what:    fmt.Sprintf("copy_file_range %d bytes at %d of %s to %d of %s", length, offIn, from, offOut, to),
		touched: []string{to}, part: to,
		run: func() error {
			return withFD(w.at(from), unix.O_RDONLY, func(in int) error {
				return withFD(w.at(to), unix.O_WRONLY, func(out int) error {
					a, b := int64(offIn), int64(offOut)
					for left := length; left > 0; {
						n, err := unix.CopyFileRange(in, &a, out, &b, left, 0)
						if err != nil {
							return err
						}
						if n == 0 {
							return wrong("copy_file_range of %s ends after %d of %d bytes", from, length-left, length)
						}
						left -= n
					}
					return nil
				})
			})
		},
		apply: func(t *cnode) { t.at(to).data = slices.Clone(after) },
	}
}

// useHeld opens a file for longer, or reads, writes or closes one that is open, with or without a name.
func (w *churn) useHeld() cop {
	if len(w.held) < 3 {
		p, n := w.pick(unix.S_IFREG)
		if n == nil {
			return w.create()
		}
		flags := []int{unix.O_RDONLY, unix.O_RDWR}[w.rnd.Intn(2)]
		return cop{what: fmt.Sprintf("open %s %#x", p, flags), run: func() error {
			fd, err := unix.Open(w.at(p), flags|unix.O_CLOEXEC, 0)
			if err == nil {
				w.held = append(w.held, held{fd, flags, n})
			}
			return err
		}}
	}
	i := w.rnd.Intn(len(w.held))
	h := w.held[i]
	switch k := w.rnd.Intn(5); {
	case k == 0:
		return cop{what: "close", run: func() error {
			w.held = slices.Delete(w.held, i, i+1)
			return unix.Close(h.fd)
		}}
	case k < 3 || h.flags == unix.O_RDONLY:
		return cop{what: "read what is open", run: func() error { return sameFD(h.fd, h.file.data, w.rnd) }}
	}
	e := w.edit(h.file)
	_, name := w.tree.names(h.file)
	if name == "" {
		return cop{what: e.what + ", which has no name", run: func() error { // no commit sees it
			err := e.run(h.fd)
			if err == nil {
				h.file.data = e.after
			}
			return err
		}}
	}
	return cop{what: e.what + " of the open " + name, touched: []string{name}, part: name, run: func() error {
		return e.run(h.fd)
	}, apply: func(t *cnode) { t.at(name).data = slices.Clone(e.after) }}
}

// sameFD reads a part of what a descriptor shows.
func sameFD(fd int, want []byte, rnd *rand.Rand) error {
	off := rnd.Intn(len(want) + 1)
	buf := make([]byte, 1+rnd.Intn(40_000))
	n := 0
	for n < len(buf) { // the kernel gives what it had before it met an error
		m, err := unix.Pread(fd, buf[n:], int64(off+n))
		if err != nil {
			return err
		}
		if m == 0 {
			break
		}
		n += m
	}
	if w := want[off:min(len(want), off+len(buf))]; !bytes.Equal(buf[:n], w) {
		return wrong("read at %d through a descriptor: %s", off, dataDiff(buf[:n], &cnode{data: w}))
	}
	return nil
}

// holesAreZeros goes through a file by SEEK_HOLE and SEEK_DATA: outside of data there are zeros.
func holesAreZeros(fd int, want []byte) error {
	for at := int64(0); at < int64(len(want)); {
		data, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			data, err = int64(len(want)), nil
		}
		if err != nil {
			return err
		}
		if data > int64(len(want)) || len(bytes.TrimLeft(want[at:data], "\x00")) > 0 {
			return wrong("from %d to %d of %d it says hole, but there are bytes", at, data, len(want))
		}
		if data == int64(len(want)) {
			return nil
		}
		if at, err = unix.Seek(fd, data, unix.SEEK_HOLE); err != nil {
			return err
		}
		if at <= data {
			return wrong("data at %d ends at %d", data, at)
		}
	}
	return nil
}
