package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Descriptors that the launcher passes to the daemon.
const (
	readyFD  = 3 // the daemon writes a readyMessage here
	configFD = 4 // the daemon reads its config as JSON here
	lockFD   = 5 // the locked lock file
)

// daemonCommand is the hidden command that the launcher runs.
const daemonCommand = "daemon"

// readyMessage says how the start went. If the pipe is closed without one, the daemon has died.
type readyMessage struct {
	OK   bool   `json:"ok"`
	Code int    `json:"code,omitempty"`
	Text string `json:"text,omitempty"`
	// Told is what the person at the terminal should know, in lines, where OK is set.
	Told []string `json:"told,omitempty"`
}

// launch starts the daemon in the background and returns once the mount is usable, or with the daemon's error.
func launch(c *config, s *stateDir, w world) error {
	// /proc/self/exe would work even after an upgrade has replaced the file, but then the daemon's executable would
	// have no name.
	exe, err := os.Executable()
	if err != nil {
		return mountError(c.Mountpoint, fmt.Errorf("find the emberfs program: %w", err), "is /proc mounted?")
	}
	fail := func(err error) error { return mountError(c.Mountpoint, fmt.Errorf("start the daemon: %w", err), "") }
	data, err := json.Marshal(c)
	if err != nil {
		return fail(err)
	}
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	defer readyR.Close()
	configR, configW, err := os.Pipe()
	if err != nil {
		return fail(errors.Join(err, readyW.Close()))
	}
	cmd := &exec.Cmd{
		Path: exe,
		Args: []string{"emberfs", daemonCommand, c.Mountpoint}, // what ps shows
		Env: slices.DeleteFunc(slices.Clone(w.environ), func(e string) bool {
			return strings.HasPrefix(e, "NOTIFY_SOCKET=")
		}),
		Stderr:     os.Stderr, // until it is ready, so that a crash is visible
		ExtraFiles: []*os.File{readyW, configR, s.lock},
	}
	err = cmd.Start()
	err = errors.Join(err, readyW.Close(), configR.Close())
	if err != nil {
		return fail(errors.Join(err, configW.Close()))
	}
	stop := forwardSignals(cmd.Process)
	defer stop()
	_, err = configW.Write(data)
	if err = errors.Join(err, configW.Close()); err != nil && !errors.Is(err, unix.EPIPE) {
		return fail(err)
	}

	var ready readyMessage
	if err := json.NewDecoder(readyR).Decode(&ready); err != nil {
		waitErr := cmd.Wait()
		if waitErr == nil && !errors.Is(err, io.EOF) {
			waitErr = err
		}
		return fail(fmt.Errorf("it ended before the mount was ready: %w", orUnknown(waitErr)))
	}
	if !ready.OK {
		// Once the daemon has ended, it has released the state directory.
		_ = cmd.Wait()
		return &failure{code: ready.Code, op: ready.Text}
	}
	printTold(w.err, ready.Told)
	return cmd.Process.Release()
}

// forwardSignals passes signals that would end the launcher on to the daemon, which then stops starting and reports
// that. The launcher has to stay, to remove what a failed mount leaves behind.
func forwardSignals(p *os.Process) (stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, terminationSignals()...)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case sig := <-signals:
				_ = p.Signal(sig) // it may be gone already
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}

func orUnknown(err error) error {
	if err == nil {
		return errors.New("no reason given")
	}
	return err
}

// runBackground is the daemon's main function. The launcher has checked and locked everything.
func runBackground(w world) error {
	var files [3]*os.File
	for i, name := range []string{"ready pipe", "config pipe", "lock"} {
		fd := readyFD + i
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return usageError(daemonCommand, "", "is started by emberfs mount alone", "run emberfs mount")
		}
		unix.CloseOnExec(fd)
		files[i] = os.NewFile(uintptr(fd), name)
	}
	ready, lock := files[0], files[2]
	c := new(config)
	err := json.NewDecoder(files[1]).Decode(c)
	if err = errors.Join(err, files[1].Close()); err != nil {
		err = mountError("", fmt.Errorf("read the daemon's config: %w", err), "")
	} else {
		err = runVolume(c, &stateDir{path: c.State, lock: lock}, w, func(told []string) error {
			if err := detach(c, os.Getenv); err != nil {
				return err
			}
			return tellLauncher(ready, readyMessage{OK: true, Told: told})
		})
	}
	var f *failure
	if errors.As(err, &f) && f.code == exitPart {
		return err // the mount was up, so the launcher has gone
	}
	if err != nil {
		_ = tellLauncher(ready, readyMessage{Code: exitCode(err), Text: redact(err.Error())})
		return &failure{code: exitCode(err), op: ""}
	}
	return nil
}

// tellLauncher ends the launcher's wait. If the launcher was killed meanwhile, that does not matter: the mount is up.
func tellLauncher(ready *os.File, m readyMessage) error {
	data, err := json.Marshal(m)
	if err == nil {
		_, err = ready.Write(data)
	}
	err = errors.Join(err, ready.Close())
	if errors.Is(err, unix.EPIPE) || errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// detach turns the process into a daemon. It must not be called before the mount is up: under an automount point, a
// process that has left its caller's process group would wait for itself.
func detach(c *config, getenv func(string) string) error {
	// A process group of its own keeps the terminal's signals away, and SIGHUP is caught without effect. It gets no
	// session of its own: that would put the daemon into another scheduler autogroup than the programs that wait for
	// it, and each request would cost half as much again.
	if err := unix.Setpgid(0, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("setpgid: %w", err)
	}
	if isJournal(os.Stderr, getenv) {
		return redirect("/dev/null", os.O_RDWR, 0, 1)
	}
	if err := redirect("/dev/null", os.O_RDWR, 0, 1); err != nil {
		return err
	}
	return redirect(c.LogFile, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 2) // the Go runtime writes crashes to stderr
}

// redirect makes descriptors refer to a file.
func redirect(path string, flags int, fds ...int) error {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return fmt.Errorf("redirect: %w", err)
	}
	for _, fd := range fds {
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil {
			return errors.Join(fmt.Errorf("redirect to %s: %w", path, err), f.Close())
		}
	}
	return f.Close()
}

// terminationSignals are the signals that end a daemon cleanly.
func terminationSignals() []os.Signal { return []os.Signal{syscall.SIGTERM, syscall.SIGINT} }
