package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// bench is one run.
type bench struct {
	options
	ctx      context.Context
	results  *results
	emberfs  string
	loopback string
	live     []*subject
	serial   int
}

// subject is a file system under test on an ext4 image of its own.
type subject struct {
	b      *bench
	kind   string // native, loopback, emberfs, rclone
	image  string
	disk   string // where the image is mounted
	mnt    string // where the work is done
	opts   string // for emberfs -o
	daemon *exec.Cmd
}

func (b *bench) build() error {
	b.emberfs, b.loopback = filepath.Join(b.dir, "emberfs"), filepath.Join(b.dir, "loopback")
	for out, pkg := range map[string]string{b.emberfs: "./cmd/emberfs", b.loopback: "./integration/loopback"} {
		if _, err := b.command(b.module, "go", "build", "-o", out, pkg); err != nil {
			return err
		}
	}
	return nil
}

// kinds lists the subjects there are on this machine.
func (b *bench) kinds() []string {
	k := []string{"native", "loopback", "emberfs"}
	if _, err := exec.LookPath("rclone"); err == nil {
		k = append(k, "rclone")
	}
	return k
}

// command runs a program to its end and gives how long it took.
func (b *bench) command(dir string, args ...string) (time.Duration, error) {
	cmd := exec.CommandContext(b.ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_AUTHOR_NAME=b",
		"GIT_AUTHOR_EMAIL=b@example.org", "GIT_COMMITTER_NAME=b", "GIT_COMMITTER_EMAIL=b@example.org")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	err := cmd.Run()
	took := time.Since(start)
	if err != nil {
		return took, fmt.Errorf("%s: %w\n%s", args[0], err, out.String())
	}
	return took, nil
}

// newSubject makes a fresh image and mounts the subject over it.
func (b *bench) newSubject(kind string, gigabytes int, opts string) (*subject, error) {
	b.serial++
	base := filepath.Join(b.dir, fmt.Sprintf("%s-%d", kind, b.serial))
	s := &subject{b: b, kind: kind, image: base + ".img", disk: filepath.Join(base, "disk"),
		mnt: filepath.Join(base, "mnt"), opts: opts}
	b.live = append(b.live, s)
	for _, d := range []string{s.disk, s.mnt} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	f, err := os.Create(s.image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(int64(gigabytes)<<30), f.Close()); err != nil {
		return nil, err
	}
	if _, err := b.command("/", "mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-N", "500000",
		s.image); err != nil {
		return nil, err
	}
	if _, err := b.command("/", "mount", "-o", "loop", s.image, s.disk); err != nil {
		return nil, err
	}
	for _, d := range []string{"orig", "state", "cache"} {
		if err := os.Mkdir(filepath.Join(s.disk, d), 0o700); err != nil {
			return nil, err
		}
	}
	return s, s.mount()
}

// with runs f with a fresh subject, which goes afterwards.
func (b *bench) with(kind string, gigabytes int, opts string, f func(s *subject) error) error {
	s, err := b.newSubject(kind, gigabytes, opts)
	if err != nil {
		return err
	}
	if err := f(s); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	return s.destroy()
}

// besideGit runs f with a native directory that is a repository of git, then with emberfs.
func (b *bench) besideGit(gigabytes int, f func(s *subject) error) error {
	if err := b.with("native", gigabytes, "", func(s *subject) error {
		if _, err := b.command(s.mnt, "sh", "-euc", "git init -q -b main; git config gc.auto 0"); err != nil {
			return err
		}
		return f(s)
	}); err != nil {
		return err
	}
	return b.with("emberfs", gigabytes, "", f)
}

// inTurn runs f with a fresh subject of each kind, round after round.
func (b *bench) inTurn(part string, kinds []string, gigabytes int, f func(s *subject, round int) error) error {
	for round := range b.rounds {
		for _, kind := range kinds {
			fmt.Fprintf(os.Stderr, "bench: %s round %d %s\n", part, round+1, kind)
			if err := b.with(kind, gigabytes, "", func(s *subject) error { return f(s, round) }); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *subject) mount() error {
	orig := filepath.Join(s.disk, "orig")
	switch s.kind {
	case "native":
		s.mnt = orig
		return nil
	case "loopback":
		return s.serve(s.b.loopback, orig, s.mnt)
	case "rclone":
		return s.serve("rclone", "mount", orig, s.mnt, "--vfs-cache-mode", "full", "--cache-dir",
			filepath.Join(s.disk, "cache"), "--config", "/dev/null", "--allow-other", "--dir-cache-time", "1h",
			"--attr-timeout", "1h")
	}
	args := []string{s.b.emberfs, "mount", s.mnt, "--state", filepath.Join(s.disk, "state")}
	if s.opts != "" {
		args = append(args, "-o", s.opts)
	}
	_, err := s.b.command("/", args...)
	return err
}

// serve starts a file system that stays in the foreground and waits until it is mounted.
func (s *subject) serve(args ...string) error {
	s.daemon = exec.CommandContext(s.b.ctx, args[0], args[1:]...)
	var out bytes.Buffer
	s.daemon.Stderr = &out
	if err := s.daemon.Start(); err != nil {
		return err
	}
	var below, here unix.Stat_t
	if err := unix.Stat(filepath.Dir(s.mnt), &below); err != nil {
		return err
	}
	deadline := time.Now().Add(20 * time.Second)
	for tick := time.NewTicker(2 * time.Millisecond); ; <-tick.C {
		if err := unix.Stat(s.mnt, &here); err == nil && here.Dev != below.Dev {
			tick.Stop()
			return nil
		}
		if time.Now().After(deadline) {
			tick.Stop()
			return fmt.Errorf("%s did not mount: %s", args[0], out.String())
		}
	}
}

// unmount takes the subject's own mount away; the image stays.
func (s *subject) unmount() error {
	var err error
	switch s.kind {
	case "native":
	case "emberfs":
		_, err = s.b.command("/", s.b.emberfs, "umount", s.mnt, "--deadline", "5m")
	default:
		_, err = s.b.command("/", "umount", s.mnt)
		if s.daemon != nil {
			err = errors.Join(err, s.daemon.Wait())
		}
	}
	s.daemon = nil
	return err
}

// remount empties the kernel's caches of names, attributes and contents of this subject.
func (s *subject) remount() error {
	if s.kind == "native" {
		return nil
	}
	return errors.Join(s.unmount(), s.mount())
}

// destroy unmounts everything and removes the image.
func (s *subject) destroy() error {
	err := s.unmount()
	for i, l := range s.b.live {
		if l == s {
			s.b.live = append(s.b.live[:i], s.b.live[i+1:]...)
			break
		}
	}
	return errors.Join(err, unix.Unmount(s.disk, 0), os.Remove(s.image))
}

// cleanUp takes away what an error left.
func (b *bench) cleanUp() error {
	b.ctx = context.WithoutCancel(b.ctx)
	for _, s := range b.live {
		_ = s.unmount()
		_ = unix.Unmount(s.mnt, unix.MNT_DETACH)
		_ = unix.Unmount(s.disk, unix.MNT_DETACH)
	}
	return os.RemoveAll(b.dir)
}

// status reads the daemon's pid of an emberfs subject.
func (s *subject) pid() (int, error) {
	out, err := exec.CommandContext(s.b.ctx, s.b.emberfs, "status", s.mnt, "--json").Output()
	if err != nil {
		return 0, fmt.Errorf("emberfs status: %w", err)
	}
	var st struct{ PID int }
	return st.PID, json.Unmarshal(out, &st)
}
