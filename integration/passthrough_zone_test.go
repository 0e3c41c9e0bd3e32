package integration

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// unseenWriter is a program that maps a file, closes it, and stores what it is told.
type unseenWriter struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// helperUnseen opens args[1] (mode mapped: and maps 64 KiB of it, and closes it), then writes each line of its input
// there.
func helperUnseen(args []string) error {
	fd, err := unix.Open(args[1], unix.O_RDWR|unix.O_CREAT, 0o644)
	if err != nil {
		return err
	}
	write := func(s string) error { _, err := unix.Pwrite(fd, []byte(s), 0); return err }
	if args[0] == "mapped" {
		m, err := unix.Mmap(fd, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
		write = func(s string) error { copy(m, s); return nil }
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if err := write(in.Text()); err != nil {
			return err
		}
		fmt.Println("done")
	}
	return nil
}

func startUnseen(t testing.TB, how, path string) *unseenWriter {
	t.Helper()
	c := command{args: []string{env.self, how, path}, env: []string{helperVar + "=unseen"}}
	w := &unseenWriter{t: t, cmd: c.prepare(context.Background())}
	var err error
	w.in, err = w.cmd.StdinPipe()
	check(t, err)
	out, err := w.cmd.StdoutPipe()
	check(t, err)
	w.out = bufio.NewReader(out)
	w.cmd.Stderr = os.Stderr
	check(t, w.cmd.Start())
	t.Cleanup(w.end)
	w.answer("ready")
	return w
}

func (w *unseenWriter) answer(want string) {
	w.t.Helper()
	line, err := w.out.ReadString('\n')
	if err != nil || line != want+"\n" {
		w.t.Fatalf("the writer says %q: %v", line, err)
	}
}

// put has the writer store a text at the file's beginning.
func (w *unseenWriter) put(text string) {
	w.t.Helper()
	_, err := fmt.Fprintln(w.in, text)
	check(w.t, err)
	w.answer("done")
}

func (w *unseenWriter) end() {
	if w.cmd != nil {
		_ = w.in.Close()
		_ = w.cmd.Wait()
		w.cmd = nil
	}
}

// begins requires that a file begins with this text.
func begins(t testing.TB, path, want string) {
	t.Helper()
	b, err := os.ReadFile(path)
	check(t, err)
	if !bytes.HasPrefix(b, []byte(want)) {
		t.Fatalf("%s begins with %q, want %q", path, b[:min(len(b), len(want))], want)
	}
}

// commitBegins requires that the last commit's file begins with this text.
func (v *volume) commitBegins(name, want string) {
	v.t.Helper()
	if got := must(v.t, "/", "git", "-C", v.cold(), "cat-file", "-p", "main:"+name); !strings.HasPrefix(got, want) {
		v.t.Fatalf("the commit's %s begins with %q, want %q", name, got[:min(len(got), len(want))], want)
	}
}

// TestPassthroughLeavesZone: a file that is written unseen, by descriptor and by mapping, moves out of what is ignored:
// every reader sees every byte, every commit takes what there is, nothing of it is released, until the writer has
// ended; also when the daemon is killed meanwhile.
func TestPassthroughLeavesZone(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"open", "mapped"} {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,killed=%v", how, killed), func(t *testing.T) {
				deadline(t, 2*time.Minute)
				v := passthroughVolume(t, "v", withSource(newBareRepo(t, "remote.git", user{})))
				check(t, os.Mkdir(v.at("build"), 0o755))
				in, out := v.at("build/f"), v.at("f")
				check(t, os.WriteFile(in, bytes.Repeat([]byte("."), 64<<10), 0o644))
				w := startUnseen(t, how, in)
				w.put("inside")
				begins(t, in, "inside")
				check(t, os.Rename(in, out))
				w.put("outside")
				begins(t, out, "outside")
				v.sync()
				v.commitBegins("f", "outside")
				if killed {
					v.kill()
					if how == "open" { // its descriptor goes on all the same: the kernel needs no daemon for it
						w.put("orphan")
					} else {
						w.put("a mapped orphan")
					}
					v.mount()
				}
				for _, text := range []string{"once", "twice", "thrice"} {
					w.put(text)
					begins(t, out, text)
					v.sync()
					v.commitBegins("f", text)
					if r := v.emberfs("tier", v.mnt, out); !strings.Contains(r.stdout, "nothing to release") {
						t.Fatalf("a file that somebody writes was released\n%v", r)
					}
				}
				if at := v.status().AtRisk; at.Files == 0 {
					t.Error("status says that nothing is at risk while a file is written unseen")
				}
				w.put("the end")
				w.end()
				// Now it is a file as any other.
				if !waitFor(30*time.Second, func() bool {
					v.sync()
					return strings.Contains(v.emberfs("tier", v.mnt, out).stdout, "released 1 file")
				}) {
					t.Errorf("not released after the writer ended: %v", v.emberfs("tier", v.mnt, out))
				}
				begins(t, out, "the end")
				v.noneOpen()
				v.umount()
				two := newVolume(t, "two", withSource(v.source)).mount()
				begins(t, two.at("f"), "the end")
				two.umount()
				fsck(t, v.source)
			})
		}
	}
}

// TestPassthroughEntersZone: a file that is open through the daemon goes on so where the rules would have it otherwise,
// and so do those who come while it is; afterwards the kernel takes over.
func TestPassthroughEntersZone(t *testing.T) {
	deadline(t, 2*time.Minute)
	v := passthroughVolume(t, "v")
	check(t, os.Mkdir(v.at("build"), 0o755))
	for _, how := range []string{"open", "mapped"} {
		in, out := v.at("build/"+how), v.at(how)
		check(t, os.WriteFile(out, bytes.Repeat([]byte("."), 64<<10), 0o644))
		w := startUnseen(t, how, out)
		w.put("outside")
		v.sync()
		check(t, os.Rename(out, in))
		w.put("inside")
		begins(t, in, "inside")
		f, err := os.OpenFile(in, os.O_RDWR, 0)
		check(t, err)
		if n := v.passthrough().Files; n != 0 {
			t.Errorf("%s: %d files are left to the kernel while one is open through the daemon", how, n)
		}
		_, err = f.WriteAt([]byte("by another"), 0)
		check(t, err)
		begins(t, in, "by another")
		w.put("again")
		begins(t, in, "again")
		w.end()
		check(t, f.Close())
		v.noneOpen()
		f, err = os.Open(in)
		check(t, err)
		if n := v.passthrough().Files; n != 1 {
			t.Errorf("%s: %d files are left to the kernel, want this one", how, n)
		}
		check(t, f.Close())
		begins(t, in, "again")
	}
	v.umount()
}

// TestPassthroughOutlivesDaemon: programs go on writing an ignored file when the daemon is killed; the next one has it
// all.
func TestPassthroughOutlivesDaemon(t *testing.T) {
	deadline(t, 2*time.Minute)
	v := passthroughVolume(t, "v")
	check(t, os.Mkdir(v.at("build"), 0o755))
	file := v.at("build/log")
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	check(t, err)
	defer f.Close()
	want := ""
	write := func(text string) {
		t.Helper()
		_, err := f.WriteString(text)
		check(t, err)
		want += text
	}
	same := func() {
		t.Helper()
		if b, err := os.ReadFile(file); err != nil || string(b) != want {
			t.Fatalf("%q, %v, want %q", b, err, want)
		}
		if st, err := os.Stat(file); err != nil || st.Size() != int64(len(want)) {
			t.Fatalf("stat: %v, %v, want %d bytes", st.Size(), err, len(want))
		}
	}
	write("one\n")
	same()
	for range 2 {
		v.kill()
		write("without a daemon\n")
		v.mount()
		same()
		write("beside the next\n")
		same()
		g, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		check(t, err)
		_, err = g.WriteString("by the next\n")
		check(t, err)
		want += "by the next\n"
		same()
		check(t, g.Close())
		v.sync()
	}
	if got := must(t, "/", "git", "-C", v.cold(), "ls-tree", "-r", "--name-only", "main"); strings.Contains(got,
		"build/log") {
		t.Errorf("an ignored file was committed:\n%s", got)
	}
}
