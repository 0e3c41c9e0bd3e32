package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lockedBuffer is a stderr that a test reads while it is written to.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// TestProgressLines checks that without a terminal there are plain lines with counts, rate and what is left, at the
// interval.
func TestProgressLines(t *testing.T) {
	var err lockedBuffer
	p := (&progress{err: &err, what: "restore", unit: "file", show: true, every: 20 * time.Millisecond}).start()
	defer p.done()
	time.Sleep(60 * time.Millisecond)
	if s := err.String(); s != "" {
		t.Errorf("before the work began: %q", s)
	}
	p.set(1, 0)
	eventually(t, "a line of units alone", func() bool {
		return strings.Contains(err.String(), "emberfs: restore: 1 file, ")
	})
	p.expect(2000, 4<<20)
	p.set(1000, 2<<20)
	want := regexp.MustCompile(
		`(?m)^emberfs: restore: 1,000 of 2,000 files, 2.0 MiB of 4.0 MiB, [0-9,]+ files/s, 50%, \d+m?\d*s left$`)
	eventually(t, "a line with totals", func() bool { return want.MatchString(err.String()) })
	fmt.Fprintln(p, "a log line")
	p.done()
	p.done()
	after := err.String()
	time.Sleep(60 * time.Millisecond)
	if got := err.String(); got != after || !strings.Contains(got, "\na log line\n") ||
		strings.ContainsAny(got, "\r\x1b") {
		t.Errorf("got %q", got)
	}
}

// TestProgressQuiet checks that --quiet shows no progress, but lets other output through.
func TestProgressQuiet(t *testing.T) {
	var err lockedBuffer
	quiet := true
	p := newProgress(world{err: &err, quiet: &quiet}, "restore", "file")
	p.every = time.Millisecond
	p.set(5, 5)
	time.Sleep(20 * time.Millisecond)
	fmt.Fprintln(p, "a log line")
	p.done()
	if got := err.String(); got != "a log line\n" {
		t.Errorf("got %q", got)
	}
}

// TestProgressTerminal checks that a terminal gets a bar that moves, that log lines appear whole above it, and that it
// is gone in the end.
func TestProgressTerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	tty, screen := openTerminal(t, 120)
	p := newProgress(world{err: tty}, "restore", "file")
	p.set(10, 1<<20)
	eventually(t, "figures without a bar", func() bool {
		return regexp.MustCompile(`restore +10 files  1\.0 MiB`).MatchString(screen.String())
	})
	if strings.Contains(screen.String(), "[=") {
		t.Errorf("a bar although the whole is not known: %q", screen.String())
	}
	p.expect(20, 4<<20)
	p.set(11, 3<<20)
	eventually(t, "a bar", func() bool { return strings.Contains(screen.String(), "[===") })
	var g sync.WaitGroup
	for i := range 4 { // counting, writing and drawing do not wait for each other in a circle
		g.Go(func() {
			for n := range 50 {
				p.set(int64(n), int64(n))
				fmt.Fprintf(p, "log line %d of %d\n", n, i)
			}
		})
	}
	g.Wait()
	p.done()
	eventually(t, "the last log line", func() bool { return strings.Contains(screen.String(), "log line 49 of 3") })
	fmt.Fprintln(tty, "END")
	eventually(t, "the end", func() bool { return strings.Contains(screen.String(), "END") })
	got := screen.String()
	for i := range 4 {
		for n := range 50 {
			if want := fmt.Sprintf("log line %d of %d\r\n", n, i); strings.Count(got, want) != 1 {
				t.Fatalf("%q: %d times in %q", want, strings.Count(got, want), got)
			}
		}
	}
	last := got[strings.LastIndex(got, "\x1b[J"):]
	if strings.Contains(last, "restore") {
		t.Errorf("the bar is still there: %q", last)
	}
}

// TestProgressBareTerminal checks that a terminal without a known size gets lines.
func TestProgressBareTerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	tty, _ := openTerminal(t, 0)
	if !isTerminal(tty) || hasRoom(tty) {
		t.Errorf("terminal %v, room %v", isTerminal(tty), hasRoom(tty))
	}
}

// openTerminal makes a pseudo-terminal and collects what appears on it.
func openTerminal(t *testing.T, columns uint16) (*os.File, *lockedBuffer) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	noError(t, err)
	master := os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { _ = master.Close() })
	noError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	noError(t, err)
	noError(t, unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: columns}))
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	noError(t, err)
	t.Cleanup(func() { _ = tty.Close() })
	screen := new(lockedBuffer)
	go func() { _, _ = io.Copy(screen, master) }()
	return tty, screen
}
