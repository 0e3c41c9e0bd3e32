//go:build slow

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { slowHelpers["reopen"] = helperReopen }

// reopenRecord is the length of a record that helperReopen appends.
const reopenRecord = 16

// helperReopen opens one of the files args[2:], whichever of them is there, args[1] times in all the ways there are,
// and appends its own record, which begins with args[0], each third time. It prints how many records it wrote.
func helperReopen(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	names, wrote := args[2:], 0
	for i := 0; i < n; {
		flags := []int{unix.O_RDONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_APPEND}[i%3]
		fd, err := unix.Open(names[i%len(names)], flags, 0)
		for k := 1; errors.Is(err, unix.ENOENT) && k <= 10*len(names); k++ {
			fd, err = unix.Open(names[(i+k)%len(names)], flags, 0)
		}
		if errors.Is(err, unix.ENOENT) {
			continue // on its way
		}
		if err != nil {
			return fmt.Errorf("open %d: %w", i, err)
		}
		switch i % 3 {
		case 0:
			var buf [reopenRecord]byte
			if m, err := unix.Pread(fd, buf[:], 0); err != nil || m < len(buf) {
				return fmt.Errorf("read %d: %d bytes: %w", i, m, err)
			}
		case 2:
			if _, err := unix.Write(fd, fmt.Appendf(nil, "%s %*d\n", args[0], reopenRecord-2-len(args[0]),
				i)); err != nil {
				return fmt.Errorf("write %d: %w", i, err)
			}
			wrote++
		}
		if err := unix.Close(fd); err != nil {
			return fmt.Errorf("close %d: %w", i, err)
		}
		i++
	}
	fmt.Println(wrote)
	return nil
}

// reopeners runs helperReopen in several processes and gives how many records each wrote, by its name.
func reopeners(t *testing.T, opens int, names ...string) (wait func() map[string]int) {
	t.Helper()
	const processes = 4
	type one struct {
		name string
		cmd  *exec.Cmd
		out  *strings.Builder
	}
	var all []one
	for p := range processes {
		o := one{name: string(rune('a' + p)), out: &strings.Builder{}}
		args := append([]string{env.self, o.name, strconv.Itoa(opens / processes)}, names...)
		o.cmd = command{args: args, env: []string{helperVar + "=reopen"}}.prepare(context.Background())
		o.cmd.Stdout, o.cmd.Stderr = o.out, o.out
		check(t, o.cmd.Start())
		all = append(all, o)
	}
	return func() map[string]int {
		wrote := map[string]int{}
		for _, o := range all {
			if err := o.cmd.Wait(); err != nil {
				t.Errorf("process %s: %v: %s", o.name, err, o.out)
				continue
			}
			wrote[o.name], _ = strconv.Atoi(strings.TrimSpace(o.out.String()))
		}
		return wrote
	}
}

// wantRecords requires that a file has all records that were written, whole.
func wantRecords(t *testing.T, path, text string, wrote map[string]int) {
	t.Helper()
	b, err := os.ReadFile(path)
	check(t, err)
	got := map[string]int{}
	for _, line := range strings.SplitAfter(strings.TrimPrefix(string(b), text), "\n") {
		if line == "" {
			continue
		}
		name, _, _ := strings.Cut(line, " ")
		if len(line) != reopenRecord {
			t.Fatalf("a torn record: %q", line)
		}
		got[name]++
	}
	for name, n := range wrote {
		if got[name] != n {
			t.Errorf("%d records of %s, want %d", got[name], name, n)
		}
	}
}

const reopenHead = "the first line.\n"

// TestPassthroughReopen: 27,000 opens by several processes beside a reader that follows the file: none fails, no byte
// is lost, and no file of warm stays registered with the kernel.
func TestPassthroughReopen(t *testing.T) {
	for _, early := range []bool{false, true} { // the follower is there before the rules reach the file
		t.Run(fmt.Sprintf("daemon_first=%v", early), func(t *testing.T) {
			deadline(t, 5*time.Minute)
			v := passthroughVolume(t, "v")
			check(t, os.Mkdir(v.at("build"), 0o755))
			file, outside := v.at("build/f"), v.at("f")
			at := file
			if early {
				at = outside
			}
			check(t, os.WriteFile(at, []byte(reopenHead), 0o644))
			copyTo, err := os.Create(filepath.Join(testDir(t), "followed"))
			check(t, err)
			defer copyTo.Close()
			tail := exec.Command("tail", "-c", "+1", "-f", at)
			tail.Stdout, tail.Stderr = copyTo, os.Stderr
			check(t, tail.Start())
			defer func() { _ = tail.Process.Kill(); _ = tail.Wait() }()
			followed := func(size int64) bool {
				st, err := copyTo.Stat()
				return err == nil && st.Size() == size
			}
			if !waitFor(10*time.Second, func() bool { return followed(int64(len(reopenHead))) }) {
				t.Fatal("tail does not follow")
			}
			if early {
				check(t, os.Rename(outside, file))
			}
			wrote := reopeners(t, 27_000, file)()
			wantRecords(t, file, reopenHead, wrote)
			st, err := os.Stat(file)
			check(t, err)
			if !waitFor(10*time.Second, func() bool { return followed(st.Size()) }) {
				t.Error("tail -f has not followed to the end")
			}
			_ = tail.Process.Kill()
			_ = tail.Wait()
			v.noneOpen()
			v.umount()
		})
	}
}

// TestPassthroughBorderStress: a file moves over the border of what is ignored all the time, and commits are made,
// while several processes open, read and append to it.
func TestPassthroughBorderStress(t *testing.T) {
	deadline(t, 5*time.Minute)
	v := passthroughVolume(t, "v")
	check(t, os.Mkdir(v.at("build"), 0o755))
	in, out := v.at("build/f"), v.at("f")
	check(t, os.WriteFile(out, []byte(reopenHead), 0o644))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for from, to := out, in; ; from, to = to, from {
			if err := os.Rename(from, to); err != nil {
				t.Error(err)
			}
			select {
			case <-stop:
				if to == in {
					if err := os.Rename(in, out); err != nil {
						t.Error(err)
					}
				}
				return
			case <-time.After(3 * time.Millisecond):
			}
		}
	}()
	wait := reopeners(t, 24_000, in, out)
	for range 10 {
		v.sync()
	}
	wrote := wait()
	close(stop)
	<-done
	wantRecords(t, out, reopenHead, wrote)
	v.noneOpen()
	v.umount()
	wantRecords(t, filepath.Join(v.state, "warm", "f"), reopenHead, wrote)
	to := filepath.Join(testDir(t), "restored")
	v.must("restore", "--from", v.state, "--to", to)
	wantRecords(t, filepath.Join(to, "f"), reopenHead, wrote)
	fsck(t, v.cold())
}

// TestPassthroughPrograms: git and go work in a directory that the kernel reads and writes itself, and what they made
// runs.
func TestPassthroughPrograms(t *testing.T) {
	t.Parallel()
	deadline(t, 15*time.Minute)
	v := passthroughVolume(t, "v")
	dir := mkdir(t, v.at("build"), user{})
	must(t, dir, "git", "clone", "-q", "--no-local", env.module, "clone")
	clone := filepath.Join(dir, "clone")
	for _, args := range [][]string{
		{"git", "fsck", "--strict"}, {"git", "repack", "-adq"}, {"git", "checkout", "-q", "-b", "other", "HEAD~20"},
		{"git", "checkout", "-q", "-"}, {"git", "gc", "-q"}, {"git", "fsck", "--strict"},
	} {
		must(t, clone, args...)
	}
	equal(t, must(t, clone, "git", "status", "--porcelain"), "", "git status:")
	buildProject(t, clone, dir)
	v.noneOpen()
	v.umount()
}
