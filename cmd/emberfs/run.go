package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"emberfs/fs"
	"emberfs/tiers"
	"emberfs/tiers/cold"
	"emberfs/tiers/subprocess"
	"emberfs/tiers/warm"
)

// outsideHeap is how many bytes the process takes besides hot and the Go heap: the pages of the program that are in
// use, and request buffers. It must not be larger than needed: if the heap has no room beside the inode table, the
// garbage collector runs twice in each commit.
const outsideHeap = 14 << 20

// heapFloor is how many bytes the Go heap may take, however small memory_limit is.
const heapFloor = 24 << 20

// runVolume opens the volume, mounts it, calls ready, serves until the mount ends, and finishes the backup. If it fails
// before ready, no mount is left behind; afterwards the only error is an incomplete final receipt. ready gets what a
// person at the terminal should know, in lines.
func runVolume(c *config, s *stateDir, w world, ready func(told []string) error) (err error) {
	// The background daemon writes to its launcher's stderr until it is ready.
	w.quiet = new(c.Quiet)
	shown := newProgress(w, "fetch", "object")
	defer shown.done()
	log, closeLog, err := daemonLog(c, shown)
	if err != nil {
		return mountError(c.Mountpoint, err, "choose another by --log-file")
	}
	defer func() { err = errors.Join(err, closeLog()) }()
	for _, warning := range c.Warnings {
		log.Warn(warning)
	}
	tuneProcess(c, w.environ)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, terminationSignals()...)
	if c.Foreground {
		signal.Notify(signals, unix.SIGHUP) // sent when its terminal goes away
	} else {
		caughtAlone(unix.SIGHUP)
	}
	caughtAlone(unix.SIGPIPE)
	noticeSignals := make(chan os.Signal, 1)
	signal.Notify(noticeSignals, unix.SIGUSR1)
	defer signal.Stop(noticeSignals)
	if err := os.Chdir("/"); err != nil { // the caller's working directory may have to be unmounted
		return mountError(c.Mountpoint, err, "")
	}
	defer signal.Stop(signals)
	// The lock is held as long as its file is open, and the garbage collector closes files that are not used any more.
	defer runtime.KeepAlive(s.lock)
	if err := notePID(s.lock, os.Getpid()); err != nil {
		return mountError(c.Mountpoint, err, "")
	}
	registry, err := openRegistry(os.Geteuid(), os.Getenv)
	if err != nil {
		return mountError(c.Mountpoint, err, "")
	}

	ctx, interrupted := interruptible(signals)
	moving, above := new(transfers), newSupervisor(c.Foreground, os.Getenv)
	stopTicking := above.extend(func() bool { return true }, func() string { return starting(moving, shown) })
	vol, err := openVolume(ctx, c, log, moving, shown)
	stopTicking()
	shown.done()
	if sig := interrupted(); sig != nil {
		if err == nil {
			err = vol.Close()
		}
		log.WithError(err).Warnf("%v while starting", sig)
		err = fmt.Errorf("interrupted by %v", sig)
	}
	if err != nil {
		return openError(c, err)
	}
	var told []string
	if text, why := vol.Offline(); why != nil {
		if help := sourceHelp(why, c.Source); help != "" {
			text += "; " + help
		}
		told = append(told, "warning: "+text)
	}
	before := vol.Previous()
	if before.State == tiers.PreviousIncomplete {
		told = append(told, "warning: INCOMPLETE: "+before.Text)
		for _, m := range before.Missing {
			told = append(told, "  missing: "+m)
		}
	} else if before.State == tiers.PreviousComplete && !before.Own && !c.Quiet {
		told = append(told, "COMPLETE: "+before.Text)
	}
	// Commands must find the volume from the moment that its mount is visible, so the socket and the registration come
	// first. A command that connects before the daemon answers waits.
	listener, err := listenControl(c.State)
	if err != nil {
		return withCode(exitMount, "mount", c.Mountpoint, errors.Join(err, vol.Close()))
	}
	entry := registration{Mountpoint: c.Mountpoint, State: c.State, PID: os.Getpid()}
	if err := registry.add(entry); err != nil {
		// The volume works without it, but commands have to be given the state directory.
		log.WithError(err).Warn("commands will not find this volume by its mountpoint")
	}
	report := &statusReport{config: c, vol: vol}
	server, err := mountVolume(vol, c, log, report.text, report.notice)
	if err != nil {
		return withCode(exitMount, "mount", c.Mountpoint, errors.Join(err, listener.remove(), registry.remove(entry),
			vol.Close()))
	}
	d := newDaemon(c, vol, server, log)
	if table, err := fs.Mounts(); err == nil {
		if m, ok := fs.MountAt(table, c.Mountpoint); ok && m.Ours() {
			d.device, entry.Device = m.Device, m.Device
			_ = registry.add(entry) // the first registration lacks only the device, which is for bind mounts
		}
	}
	d.abort, d.transfers = server.Abort, moving
	report.daemon.Store(d)
	d.supervisor = above
	control := listener.serve(d)
	vol.Start()
	if err := ready(told); err != nil {
		err = errors.Join(err, server.Unmount(true), server.Wait(), vol.Close())
		return errors.Join(withCode(exitMount, "mount", c.Mountpoint, err), control.close(), registry.remove(entry))
	}
	d.noticed.begin(noticeSignals)
	above.notify("READY=1\nSTATUS=" + d.doing())
	if err := writeReceipt(c.State, vol.StartReceipt(), time.Now()); err != nil {
		log.WithError(err).Error("the receipt of this start is not on disk")
	}
	log.WithFields(logrus.Fields{"mountpoint": c.Mountpoint, "state": c.State, "source": c.Source,
		"branch": c.Branch}).Info("mounted")

	receipt := d.serve(signals)
	// Waiting commands get their answer before the lock is released, and the registration goes before anybody can find
	// the volume free.
	if err := errors.Join(control.close(), registry.remove(entry)); err != nil {
		log.WithError(err).Warn("cleaning up")
	}
	return partError("mount", c.Mountpoint, receipt)
}

// openError is the error of a mount whose volume could not be opened.
func openError(c *config, err error) error {
	var noBranch *cold.NoBranchError
	var offline *tiers.OfflineError
	var incomplete *tiers.IncompleteError
	switch {
	case errors.Is(err, warm.ErrUnproven):
		return mountError(c.Mountpoint, err, warm.UnprovenHelp)
	case errors.As(err, &noBranch):
		return mountError("source "+c.Source, noBranch, "--branch NAME mounts another, --init begins branch "+
			shellQuote(c.Branch)+" there")
	case errors.As(err, &offline):
		return mountError(c.Mountpoint, err, "--offline=allow mounts what is here")
	case errors.As(err, &incomplete):
		return mountError(c.Mountpoint, err, "without --require-complete (--require-complete=off) what is here is "+
			"mounted")
	}
	if help := sourceHelp(err, c.Source); help != "" {
		return mountError(c.Mountpoint, err, help)
	}
	return withCode(exitMount, "mount", c.Mountpoint, err)
}

// interruptible returns a context that a signal cancels. The returned function ends this, and returns the signal if one
// came.
func interruptible(signals <-chan os.Signal) (context.Context, func() os.Signal) {
	ctx, cancel := context.WithCancelCause(context.Background())
	done, result := make(chan struct{}), make(chan os.Signal, 1)
	go func() {
		select {
		case sig := <-signals:
			cancel(fmt.Errorf("interrupted by %v", sig))
			result <- sig
		case <-done:
			result <- nil
		}
	}()
	return ctx, func() os.Signal {
		close(done)
		return <-result
	}
}

// daemonLog opens the log that the settings ask for. Without a log file it is stderr.
func daemonLog(c *config, stderr io.Writer) (logrus.FieldLogger, func() error, error) {
	if c.LogFile == "" {
		return newLogger(c, stderr, isJournal(os.Stderr, os.Getenv)), func() error { return nil }, nil
	}
	f, err := openLog(c.LogFile, c.LogFile == filepath.Join(c.State, logName))
	if err != nil {
		return nil, nil, err
	}
	return newLogger(c, f, false), f.Close, nil
}

// caughtAlone makes a signal have no effect on this process. It is caught, not ignored, because children inherit
// ignored signals.
func caughtAlone(sig os.Signal) { signal.Notify(make(chan os.Signal, 1), sig) }

// tuneProcess limits the heap to what memory_limit leaves besides hot, unless the user has configured the Go runtime,
// and raises the limit of open files.
func tuneProcess(c *config, environ []string) {
	if !hasVariable(environ, "GOMEMLIMIT") {
		debug.SetMemoryLimit(max(heapFloor, c.MemoryLimit-tiers.HotBytes(c.MemoryLimit)-outsideHeap))
	}
	if !hasVariable(environ, "GOGC") {
		debug.SetGCPercent(200) // the heap is small compared to hot, and the limit above bounds it
	}
	subprocess.ClearUmask()
	subprocess.RaiseOpenFiles(1 << 20)
}

// noticeGrace is how long a daemon may take to notice that its mount is gone.
const noticeGrace = 2 * time.Second

// exitGrace is how long a daemon may take to end after its last answer.
const exitGrace = 10 * time.Second

// waitForPredecessor waits for a daemon that has lost its mount and is finishing its backup, so that a stop followed by
// a start does not fail. It returns false if the holder of the lock serves a mount, or does not end.
func waitForPredecessor(ctx context.Context, e *inUseError) bool {
	cl := newClient(e.state)
	st, err := cl.who(ctx)
	// Just after the unmount the daemon may not have noticed it yet.
	for end := time.Now().Add(noticeGrace); err == nil && st.Phase == phaseMounted && unmounted(st.Mountpoint) &&
		time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
		st, err = cl.who(ctx)
	}
	switch {
	case err != nil: // it does not answer any more, was killed a moment ago, or does not answer yet
		return awaitExit(e.pid, noticeGrace)
	case st.Phase != phaseFinishing:
		return false
	}
	if w, err := cl.startWait(ctx); err == nil {
		_, _ = w.receipt()
	}
	return awaitExit(st.PID, exitGrace)
}

// unmounted reports whether no volume is mounted there, as far as this mount namespace shows.
func unmounted(mountpoint string) bool {
	table, err := fs.Mounts()
	m, ok := fs.MountAt(table, mountpoint)
	return err == nil && (!ok || !m.Ours())
}

// awaitExit waits until a process has ended and thus released its locks. It returns false if the process is still there
// after the limit.
func awaitExit(pid int, limit time.Duration) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	defer unix.Close(fd)
	end := time.Now().Add(limit)
	for {
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if n > 0 {
			return true
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
	}
}
