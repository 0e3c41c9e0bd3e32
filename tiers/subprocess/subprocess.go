// Package subprocess starts other programs: git and so its hooks, fusermount3. They get what a user's shell would give
// them and nothing of the daemon's own state: its umask of zero, its limit of open files, its ignored signals, its
// variables and descriptors. Every program that EmberFS starts is started here, but for the daemon itself; a test of
// package integration holds that.
package subprocess

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// shell starts the program: a umask belongs to a whole process, and so do its limits. They have to be changed between
// fork and exec, where Go runs nothing of ours.
const shell = "/bin/sh"

// fallbackPath is used where there is no PATH, as in a mount helper.
const fallbackPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// atStart is what this process got from the one that started it.
var atStart = struct {
	umask int
	files unix.Rlimit // the runtime has raised the soft limit by now, and lowers it again for children
}{umask(), openFiles()}

// umask reads the mask without changing it: other threads may be making files.
func umask() int {
	mask := 0o022
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return mask
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "Umask:"); ok {
			_, _ = fmt.Sscanf(v, "%o", &mask)
		}
	}
	return mask
}

// ClearUmask makes this process's own umask nothing: requests of programs carry theirs, and what EmberFS keeps for
// itself has modes that depend on nobody's. Children get the one of the start.
func ClearUmask() { clearUmask() }

var clearUmask = sync.OnceFunc(func() { unix.Umask(0) })

func openFiles() (lim unix.Rlimit) {
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	return lim
}

// RaiseOpenFiles asks for a limit of open files for this process alone: children get the one that it was started with.
func RaiseOpenFiles(want uint64) {
	if atStart.files.Max == 0 || atStart.files.Max >= want {
		return
	}
	// Only root may; a user keeps the hard limit, to which the runtime has raised us. Not by unix.Setrlimit: after that
	// the runtime no longer gives children the limits of the start.
	lim := unix.Rlimit{Cur: want, Max: want}
	_, _, _ = unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&lim)), 0, 0, 0)
}

// script is what the shell does. Nobody but their owner writes the files that children make, whatever umask this
// process was started with: a service may have been started with none.
func script() string {
	s := fmt.Sprintf("umask %04o; ", atStart.umask|0o022)
	// Where soft and hard limit were the same the runtime changed nothing, and takes nothing back.
	if now := openFiles(); atStart.files.Max != 0 && now.Max > atStart.files.Max {
		s += fmt.Sprintf(`[ "$(ulimit -Hn)" = %[1]d ] || ulimit -n %[1]d; `, atStart.files.Max)
	}
	return s + `exec "$0" "$@"`
}

// Command is exec.CommandContext for a program given by its path, as Find returns it. Its environment is Environment().
func Command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, shell, append([]string{"-c", script(), path}, args...)...)
	cmd.Env = Environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	return cmd
}

// kept are the variables that a program of a user's may need: who and where they are, how to reach hosts and agents.
var kept = []string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR",
	"SSH_AUTH_SOCK",
	"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"}

// Environment is the environment of children: of ours what is kept, always with a PATH.
func Environment() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return !slices.Contains(kept, name)
	})
	if os.Getenv("PATH") == "" {
		env = append(env, "PATH="+fallbackPath)
	}
	return env
}

// Fusermount is the path of fusermount3, which mounts and unmounts for users; PATH need not lead to it.
func Fusermount() (string, error) { return Find("fusermount3", "/usr/bin", "/bin", "/usr/local/bin") }

// Find returns the path of a program by its name, of those in more directories too. The error is exec.ErrNotFound, with
// the directories that were looked at where there is no PATH.
func Find(name string, more ...string) (string, error) {
	path := os.Getenv("PATH")
	if path != "" {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	} else {
		more = slices.Concat(strings.Split(fallbackPath, ":"), more)
	}
	for _, dir := range more {
		if p, err := exec.LookPath(dir + "/" + name); err == nil {
			return p, nil
		}
	}
	if path != "" {
		return "", fmt.Errorf("%s: %w in PATH", name, exec.ErrNotFound)
	}
	return "", fmt.Errorf("%s: %w in any of %s", name, exec.ErrNotFound, strings.Join(more, ":"))
}
