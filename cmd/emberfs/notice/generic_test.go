package notice

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
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "not/yet/there")
	w := observe(t, "file:"+path, quick())
	time.Sleep(50 * time.Millisecond)
	if n := w.board.Current(); n != nil || len(w.board.Problems()) > 0 {
		t.Fatalf("without the file there is %+v, %q", n, w.board.Problems())
	}
	write(t, filepath.Join(dir, "not"), "in the way")
	time.Sleep(30 * time.Millisecond)
	if err := errors.Join(os.Remove(filepath.Join(dir, "not")), os.MkdirAll(filepath.Dir(path), 0o755)); err != nil {
		t.Fatal(err)
	}
	gone := func() {
		t.Helper()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		w.ends()
	}
	for _, text := range []string{"", "soon", "-5s", "\x00\xff", strings.Repeat("9", 1000)} {
		write(t, path, text)
		if n := w.becomes("file"); !n.Guessed || n.Until.Sub(n.When) != Usual || n.Source != "file" {
			t.Errorf("%.10q: %+v", text, n)
		}
		gone()
	}
	began := time.Now()
	write(t, path, "90s\nand more\n")
	n := w.until("timed", func(n *Notice) bool { return n != nil && !n.Guessed })
	if n.Until.Sub(n.When) != 90*time.Second || n.When.Before(began) {
		t.Errorf("%+v", n)
	}
	// The time may change while the file is there, and does not move by itself.
	first := w.board.Current()
	time.Sleep(50 * time.Millisecond)
	if now := w.board.Current(); *now != *first {
		t.Errorf("it was %+v, now it is %+v", first, now)
	}
	write(t, path, "2031-01-02T03:04:05+01:00")
	w.until("a date", func(n *Notice) bool { return n != nil && n.Until.Equal(at(t, "2031-01-02T02:04:05Z")) })
	gone()
	// What is no file is a notice too, and nothing is read of it.
	if err := unix.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if n := w.becomes("file"); !n.Guessed {
		t.Errorf("%+v", n)
	}
	gone()
}

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	yes, odd := filepath.Join(dir, "yes"), filepath.Join(dir, "odd")
	w := observe(t, "command:[ ! -e "+odd+" ] || exit 3; [ -e "+yes+" ] && cat "+yes, quick())
	time.Sleep(100 * time.Millisecond)
	if n := w.board.Current(); n != nil || len(w.board.Problems()) > 0 {
		t.Fatalf("while it exits 1 there is %+v, %q", n, w.board.Problems())
	}
	write(t, yes, "")
	w.becomes("command")
	write(t, yes, "2031-01-02T03:04:05Z\n")
	w.until("a date", func(n *Notice) bool { return n != nil && n.Until.Equal(at(t, "2031-01-02T03:04:05Z")) })
	write(t, odd, "")
	w.problem("exit status 3")
	if w.board.Current() == nil {
		t.Error("a command that fails takes the notice back")
	}
	if err := os.Remove(odd); err != nil {
		t.Fatal(err)
	}
	w.problem("")
	if err := os.Remove(yes); err != nil {
		t.Fatal(err)
	}
	w.ends()
}

// TestShell: a command is bounded in time with all that it started, and its output and errors in size.
func TestShell(t *testing.T) {
	began := time.Now()
	_, err := Shell(t.Context(), 200*time.Millisecond, "sleep 61 & sleep 62")
	if took := time.Since(began); err == nil || took > 5*time.Second || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v after %v", err, took)
	}
	began = time.Now()
	out, err := Shell(t.Context(), time.Minute, "sleep 5 & echo $A; pwd", "A=b c")
	if took := time.Since(began); err != nil || out != "b c\n/\n" || took > 4*time.Second {
		t.Errorf("%q, %v after %v", out, err, took)
	}
	_, err = Shell(t.Context(), time.Minute, "yes wrong | head -c 100000 >&2; exit 7")
	if err == nil || !strings.Contains(err.Error(), "exit status 7: wrong wrong") || len(err.Error()) > 600 {
		t.Errorf("%v", err)
	}
	t.Setenv("EMBERFS_TOKEN", "secret")
	if out, err := Shell(t.Context(), time.Minute, "env"); err != nil || strings.Contains(out, "secret") {
		t.Errorf("%q, %v", out, err)
	}
}

func TestParse(t *testing.T) {
	for _, good := range []string{"auto", "aws", "gcp", "azure", "none", "file:/run/x", "command:test -e /x && date:"} {
		if s, err := Parse(good); err != nil || s.String() != good {
			t.Errorf("%q: %+v %v", good, s, err)
		}
	}
	if s, err := Parse("FILE:x"); err != nil || !filepath.IsAbs(s.Arg) {
		t.Errorf("%+v %v", s, err)
	}
	for _, bad := range []string{"", "on", "file", "file:", "command:", "command: ", "aws:x", "none:"} {
		if s, err := Parse(bad); err == nil {
			t.Errorf("%q is taken: %+v", bad, s)
		}
	}
}

// TestBoard: the notice that matters most is told of, in order, and once.
func TestBoard(t *testing.T) {
	var told []string
	b := NewBoard(func(n *Notice) {
		if n == nil {
			told = append(told, "-")
		} else {
			told = append(told, n.What)
		}
	})
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	b.now = func() time.Time { return now }
	b.Put("a", &Notice{What: "warning"})
	b.Put("b", &Notice{What: "late", Until: now.Add(time.Hour)})
	now = now.Add(time.Second)
	b.Put("c", &Notice{What: "soon", Guessed: true, Detail: "two\nlines"})
	first := *b.Current()
	now = now.Add(10 * time.Second)
	b.Put("c", &Notice{What: "soon", Guessed: true, Detail: "two\nlines"}) // a guess does not move
	if got := *b.Current(); got != first || got.Detail != "two lines" || got.Until.Sub(got.When) != Usual {
		t.Errorf("%+v, it was %+v", got, first)
	}
	b.Put("b", &Notice{What: "late", Until: now.Add(2 * time.Hour)}) // nobody cares
	b.Put("b", nil)
	b.Put("c", nil)
	b.Put("c", nil)
	b.Put("a", &Notice{What: "warning"})
	b.Put("a", nil)
	if want := []string{"warning", "late", "soon", "warning", "-"}; !slices.Equal(told, want) || b.Current() != nil {
		t.Errorf("told of %q", told)
	}
}

// TestBoardOverdue: a notice whose time has passed hides no other one, neither one that comes later nor one that was
// there all the time.
func TestBoardOverdue(t *testing.T) {
	var told []string
	b := NewBoard(func(n *Notice) { told = append(told, n.What) })
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	b.now = func() time.Time { return now }
	b.Put("clock", &Notice{What: "expire", Until: now.Add(time.Minute)})
	b.Put("aws", &Notice{What: "stop", Until: now.Add(time.Hour)})
	now = now.Add(time.Minute + Overdue)
	b.Look()
	b.Put("file", &Notice{What: "file", Guessed: true})
	b.Put("aws", nil)
	now = now.Add(Usual + Overdue)
	b.Put("aws", &Notice{What: "rebalance"})
	if want := []string{"expire", "stop", "file", "rebalance"}; !slices.Equal(told, want) {
		t.Errorf("told of %q, want %q", told, want)
	}
}

// TestBoardBegun: where a source gives no time any more, as Azure does once an event has begun, the machine goes away
// from that moment on, and not from when it was announced.
func TestBoardBegun(t *testing.T) {
	b := NewBoard(func(*Notice) {})
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now := began
	b.now = func() time.Time { return now }
	b.Put("azure", &Notice{What: "reboot", Until: began.Add(15 * time.Minute)})
	now = began.Add(15 * time.Minute)
	for range 3 { // a guess does not move
		b.Put("azure", &Notice{What: "reboot", Guessed: true})
		want := began.Add(15*time.Minute + Usual)
		if n := b.Current(); !n.Until.Equal(want) || !n.When.Equal(began) || !n.Guessed {
			t.Errorf("%+v, want until %v", n, want)
		}
		now = now.Add(time.Second)
	}
}

func TestSignal(t *testing.T) {
	var told []*Notice
	b := NewBoard(func(n *Notice) { told = append(told, n) })
	b.Signal("SIGUSR1")
	if n := b.Current(); n == nil || n.What != "signal" || n.Until.Sub(n.When) != Usual ||
		!strings.Contains(n.Detail, "SIGUSR1") {
		t.Errorf("%+v", n)
	}
	time.Sleep(1100 * time.Millisecond)
	b.Signal("SIGUSR1") // counts anew
	if len(told) != 2 || told[1].Until.Sub(told[0].Until) < time.Second {
		t.Errorf("told of %+v", told)
	}
}

func TestClock(t *testing.T) {
	b := NewBoard(func(*Notice) {})
	end := time.Now().Add(time.Hour)
	lead := time.Hour - 200*time.Millisecond
	w := &watched{t: t, board: b}
	log, _ := newLog()
	o := Options{Spec: Spec{Kind: None}, Board: b, Log: log, Expires: end, Lead: lead}
	watcher := start(o, t.TempDir(), quick())
	if n := b.Current(); n != nil {
		t.Errorf("too early: %+v", n)
	}
	n := w.becomes("expire")
	if early := time.Until(end) - lead; early > 0 || !n.Until.Equal(end) || n.Guessed {
		t.Errorf("%v too early: %+v", early, n)
	}
	watcher.Stop()
	o.Expires = end.Add(time.Hour)
	watcher = start(o, t.TempDir(), quick())
	watcher.Stop()
	noneLeft(t)
}
