package notice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/subprocess"
)

// watchFile looks for a file each second: inotify does not see all of network file systems and directories to come.
// While it is there the machine is about to go away, and its first line may say when.
func watchFile(ctx context.Context, t teller, path string) {
	var began time.Time // when the file was there first, which a duration in it counts from
	each(ctx, t.rhythm.file, func() {
		text, err := firstLine(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			t.asked("file", nil)
			t.say("file", nil)
			began = time.Time{}
			return
		}
		if t.asked("file", err); err != nil && !errors.Is(err, errUnread) {
			return // it may be there or not
		}
		if began.IsZero() {
			began = time.Now()
		}
		t.say("file", timed("file", text, path+" is there", began))
	})
}

// errUnread says that a file is there, which is the notice, but cannot be read.
var errUnread = errors.New("the file is there, but cannot be read")

// firstLine returns the first line of a file, at most 200 bytes of it; "" for what is no ordinary file.
func firstLine(path string) (string, error) {
	if st, err := os.Stat(path); err != nil {
		return "", err
	} else if !st.Mode().IsRegular() {
		return "", nil
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // it may be a FIFO by now
	if errors.Is(err, fs.ErrNotExist) {
		return "", err
	} else if err != nil {
		return "", fmt.Errorf("%w: %w", errUnread, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 200))
	if err != nil {
		return "", fmt.Errorf("%w: %w", errUnread, err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(line), nil
}

// timed returns a notice of which a text may say the time: as in RFC 3339, or as a duration after began. Any other text
// says nothing of it.
func timed(what, text, detail string, began time.Time) *Notice {
	n := &Notice{What: what, When: began, Detail: detail}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		n.Until = at
	} else if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		n.Until = began.Add(d)
	} else {
		n.Guessed = true
	}
	return n
}

// watchCommand runs a shell command every few seconds. While it exits 0 the machine is about to go away, and the first
// line of its output may say when; while it exits 1 it is not. Any other end says nothing.
func watchCommand(ctx context.Context, t teller, command string) {
	var began time.Time
	each(ctx, t.rhythm.command, func() {
		out, err := Shell(ctx, t.rhythm.commandPatience, command)
		if ctx.Err() != nil {
			return
		}
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit) && exit.ExitCode() == 1:
			t.asked("command", nil)
			t.say("command", nil)
			began = time.Time{}
			return
		case err != nil:
			t.asked("command", err)
			return
		}
		t.asked("command", nil)
		if began.IsZero() {
			began = time.Now()
		}
		line, _, _ := strings.Cut(out, "\n")
		t.say("command", timed("command", strings.TrimSpace(line), "the command exits 0", began))
	})
}

// Shell runs a shell command with the environment of package subprocess and more variables ("NAME=value"), for at most
// patience, and then ends it and what it started. It returns the beginning of its standard output. The error of a
// command that fails has the beginning of its standard error.
func Shell(ctx context.Context, patience time.Duration, command string, more ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := subprocess.Command(ctx, "/bin/sh", "-c", command)
	cmd.Env = append(cmd.Env, more...)
	cmd.Dir = "/"
	cmd.SysProcAttr.Setpgid = true
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out, errs beginning
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, context.DeadlineExceeded) {
		err = fmt.Errorf("killed, as it may take %v at most: %w", patience, cause)
	} else if err != nil && cause != nil {
		err = fmt.Errorf("killed: %w", cause)
	} else if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it has ended well, and left something in the background that has our pipes
	}
	if text := strings.Join(strings.Fields(string(errs)), " "); err != nil && text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	return string(out), err
}

// beginning is a Writer that keeps the first 500 bytes.
type beginning []byte

func (b *beginning) Write(p []byte) (int, error) {
	*b = append(*b, p[:min(len(p), max(0, 500-len(*b)))]...)
	return len(p), nil
}

// Signal tells of a signal, by which a person or another program says that the machine goes away. A later one counts
// anew. The notice ends Overdue after its time if the machine is still there, since nothing else takes it back.
func (b *Board) Signal(name string) {
	const slot = "signal"
	now := b.now()
	b.Put(slot, &Notice{What: "signal", Source: "signal", When: now, Guessed: true, Detail: "the daemon got " + name})
	time.AfterFunc(Usual+Overdue, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.slots[slot].When.Equal(now) {
			delete(b.slots, slot)
			b.tell()
		}
	})
}

// Overdue is how long after its time a notice is still believed: clouds are late now and then.
const Overdue = time.Minute

// watchClock tells of the end of a machine whose end is known, from lead before it on.
func watchClock(ctx context.Context, t teller, expires time.Time, lead time.Duration) {
	pause(ctx, time.Until(expires.Add(-lead)))
	if ctx.Err() == nil {
		t.say("clock", &Notice{What: "expire", Until: expires, Detail: "its time is up (expires_in or expires_at)"})
	}
}
