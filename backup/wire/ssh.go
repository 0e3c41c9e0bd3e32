package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"emberfs/tiers/subprocess"
)

const (
	// masterIdle is how long the kept connection outlives its last use: it also goes by itself after a killed daemon.
	masterIdle = 2 * time.Minute
	// aliveEvery and aliveMost make a connection that says nothing an error after their product.
	aliveEvery, aliveMost = 10, 3
	// maxSocket is what the path of a Unix socket may have (unix(7)), less what ssh appends while it makes one.
	maxSocket = 107 - 18
)

// sshDialer reaches a repository through the system's ssh, which is called as git calls it (git-config(1),
// core.sshCommand; git(1), GIT_SSH_COMMAND). One connection is kept and shared by all sessions: a new one costs about
// 200 ms of CPU on both sides. Safe for concurrent use.
type sshDialer struct {
	host    string // [user@]host
	port    int    // 0: ssh's own
	path    string // as the other side is asked for it
	accept  bool   // take the key of a host that is not known yet
	command string // for a shell; "": the program ssh
	socket  string // of the connection that is kept; "": none is

	mu sync.Mutex // while the connection is made
}

// newSSH readies a dialer; dir is where the socket of the kept connection may lie.
func newSSH(a *address, dir string, accept bool) *sshDialer {
	d := &sshDialer{host: a.host, port: a.port, path: a.path, accept: accept, command: sshCommand()}
	if a.user != "" {
		d.host = a.user + "@" + a.host
	}
	if socket := filepath.Join(dir, "ssh"); dir != "" && len(socket) <= maxSocket && d.openSSH() {
		d.socket = socket
	}
	return d
}

// sshCommand is what the user wants in place of ssh.
func sshCommand() string {
	if c := os.Getenv("GIT_SSH_COMMAND"); c != "" {
		return c
	}
	if c, err := gitConfig(context.Background(), "--get", "core.sshCommand"); err == nil && c != "" {
		return c
	}
	if p := os.Getenv("GIT_SSH"); p != "" {
		return shellWord(p)
	}
	return ""
}

// gitConfig asks the git program, where there is one, for what its configuration says outside of repositories.
func gitConfig(ctx context.Context, args ...string) (string, error) {
	git, err := subprocess.Find("git")
	if err != nil {
		return "", err
	}
	cmd := subprocess.Command(ctx, git, append([]string{"config"}, args...)...)
	cmd.Env = append(subprocess.Environment(), "LC_ALL=C", "GIT_DIR=/nonexistent")
	cmd.Dir = "/"
	out, err := cmd.Output()
	return strings.TrimRight(string(out), "\n"), err
}

// openSSH says whether the program takes OpenSSH's options, by its name, as git guesses it.
func (d *sshDialer) openSSH() bool {
	switch v := os.Getenv("GIT_SSH_VARIANT"); v {
	case "", "auto":
	default:
		return v == "ssh"
	}
	if d.command == "" {
		return true
	}
	for _, w := range strings.Fields(d.command) {
		if !strings.Contains(w, "=") { // variables may come before the program
			base := strings.ToLower(strings.TrimSuffix(filepath.Base(strings.Trim(w, `"'`)), ".exe"))
			return base != "plink" && base != "putty" && base != "tortoiseplink"
		}
	}
	return true
}

// options are those of every call.
func (d *sshDialer) options() []string {
	if !d.openSSH() {
		list := []string{"-batch"}
		if d.port != 0 {
			list = append(list, "-P", strconv.Itoa(d.port))
		}
		return list
	}
	check := "yes"
	if d.accept {
		check = "accept-new"
	}
	list := []string{"-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=" + check, "-o", "ConnectTimeout=30",
		"-o", fmt.Sprintf("ServerAliveInterval=%d", aliveEvery), "-o", fmt.Sprintf("ServerAliveCountMax=%d", aliveMost),
		"-o", "SendEnv=GIT_PROTOCOL"}
	if d.port != 0 {
		list = append(list, "-p", strconv.Itoa(d.port))
	}
	return list
}

// program is a call of ssh.
func (d *sshDialer) program(ctx context.Context, args ...string) *exec.Cmd {
	var cmd *exec.Cmd
	if d.command == "" {
		path, err := subprocess.Find("ssh")
		if err != nil {
			cmd = subprocess.Command(ctx, "ssh", args...)
			cmd.Err = fmt.Errorf("%w; install OpenSSH's client, or name another program in GIT_SSH_COMMAND", err)
			return cmd
		}
		cmd = subprocess.Command(ctx, path, args...)
	} else {
		cmd = subprocess.Command(ctx, "/bin/sh", append([]string{"-c", d.command + ` "$@"`, d.command}, args...)...)
	}
	cmd.Env = append(subprocess.Environment(), "LC_ALL=C")
	cmd.Dir = "/"
	return cmd
}

func (d *sshDialer) dial(ctx context.Context, service string) (*session, error) {
	args := d.options()
	if d.socket != "" {
		if err := d.keep(ctx); err != nil {
			return nil, fmt.Errorf("connect to %s: %w", d.host, err)
		}
		args = append(args, "-o", "ControlMaster=no", "-o", "ControlPath="+d.socket)
	}
	args = append(args, "--", d.host, "git-"+service+" "+shellWord(d.path))
	if !d.openSSH() {
		args = append(d.options(), d.host, "git-"+service+" "+shellWord(d.path))
	}
	return spawn(ctx, service, func(ctx context.Context) *exec.Cmd {
		cmd := d.program(ctx, args...)
		if service == uploadPack {
			cmd.Env = append(cmd.Env, askVersion2) // which is sent where the server accepts it (see options)
		}
		return cmd
	})
}

// keep makes the connection that sessions share, unless there is one.
func (d *sshDialer) keep(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c, err := net.Dial("unix", d.socket); err == nil {
		return c.Close()
	}
	_ = os.Remove(d.socket) // of a connection that has ended
	// -f ends the call once the connection stands. What it said goes to a file: a pipe would stay open with it.
	said, err := os.CreateTemp("", "emberfs-ssh")
	if err != nil {
		return err
	}
	defer said.Close()
	if err := os.Remove(said.Name()); err != nil {
		return err
	}
	cmd := d.program(ctx, append(d.options(), "-M", "-N", "-f", "-o", "ControlPath="+d.socket,
		"-o", fmt.Sprintf("ControlPersist=%d", int(masterIdle.Seconds())), "--", d.host)...)
	cmd.Stderr = said
	if err := cmd.Run(); err != nil {
		var words messages
		text := make([]byte, maxMessages)
		n, _ := said.ReadAt(text, 0)
		_, _ = words.Write(text[:n])
		return fmt.Errorf("ssh: %w (it said: %s)", errors.Join(ctx.Err(), err), words.String())
	}
	return nil
}

// close ends the kept connection.
func (d *sshDialer) close() error {
	if d.socket == "" {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := os.Lstat(d.socket); err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), killDelay)
	defer cancel()
	_ = d.program(ctx, "-o", "ControlPath="+d.socket, "-O", "exit", "--", d.host).Run() // it may have ended by itself
	return nil
}

// shellWord quotes a word for a shell.
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
