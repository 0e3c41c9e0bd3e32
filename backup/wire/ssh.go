package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

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
	command string // for a shell; "": the program ssh
	socket  string // of the connection that is kept; "": none is
	o       *Options
	key     *sshKey

	mu sync.Mutex // while the connection is made
}

// newSSH readies a dialer. What it keeps in the directory of the options has the name.
func newSSH(a *address, o *Options, name string) (*sshDialer, error) {
	command, err := sshCommand()
	if err != nil {
		return nil, err
	}
	d := &sshDialer{host: a.host, port: a.port, path: a.path, command: command, o: o}
	if d.key, err = newSSHKey(o, name+"_key"); err != nil {
		return nil, err
	}
	if a.user != "" {
		d.host = a.user + "@" + a.host
	}
	if strings.HasPrefix(d.host, "-") {
		return nil, errBadHost
	}
	if socket := filepath.Join(o.Dir, name); o.Dir != "" && len(socket) <= maxSocket && d.openSSH() {
		d.socket = socket
	}
	return d, nil
}

// sshCommand is what the user wants in place of ssh.
func sshCommand() (string, error) {
	if c := os.Getenv("GIT_SSH_COMMAND"); c != "" {
		return c, nil
	}
	c, err := gitConfig(context.Background(), "--get", "core.sshCommand")
	if c = strings.TrimRight(c, "\n"); c != "" || err != nil {
		return c, err
	}
	if p := os.Getenv("GIT_SSH"); p != "" {
		return shellWord(p), nil
	}
	return "", nil
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

// options are those of every call, with the key that counts now.
func (d *sshDialer) options() ([]string, error) {
	key, err := d.key.file()
	if err != nil {
		return nil, fmt.Errorf("ssh key: %w", err)
	}
	known, err := knownHosts(d.o)
	if err != nil {
		return nil, fmt.Errorf("known hosts: %w", err)
	}
	if !d.openSSH() {
		list := []string{"-batch"}
		if d.port != 0 {
			list = append(list, "-P", strconv.Itoa(d.port))
		}
		if key != "" {
			list = append(list, "-i", key)
		}
		if known != "" {
			return nil, errors.New("known hosts in a file of their own need OpenSSH, and the ssh command is another")
		}
		return list, nil
	}
	check := "yes"
	if d.o.AcceptNew {
		check = "accept-new"
	}
	list := []string{"-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=" + check, "-o", "ConnectTimeout=30",
		"-o", fmt.Sprintf("ServerAliveInterval=%d", aliveEvery), "-o", fmt.Sprintf("ServerAliveCountMax=%d", aliveMost),
		"-o", "SendEnv=GIT_PROTOCOL"}
	if d.port != 0 {
		list = append(list, "-p", strconv.Itoa(d.port))
	}
	if key != "" {
		list = append(list, "-o", "IdentityFile="+sshWord(key), "-o", "IdentitiesOnly=yes")
	}
	if known != "" {
		list = append(list, "-o", "UserKnownHostsFile="+sshWord(known))
	}
	return list, nil
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
	options, err := d.options()
	if err != nil {
		return nil, err
	}
	args := options
	if d.socket != "" {
		if err := d.keep(ctx, options); err != nil {
			return nil, fmt.Errorf("connect to %s: %w", d.host, err)
		}
		args = append(slices.Clone(options), "-o", "ControlMaster=no", "-o", "ControlPath="+sshWord(d.socket))
	}
	args = append(args, "--", d.host, "git-"+service+" "+shellWord(d.path))
	if !d.openSSH() {
		args = append(options, d.host, "git-"+service+" "+shellWord(d.path))
	}
	s, err := spawn(ctx, service, func(ctx context.Context) *exec.Cmd {
		cmd := d.program(ctx, args...)
		if service == uploadPack {
			cmd.Env = append(cmd.Env, askVersion2) // which is sent where the server accepts it (see options)
		}
		return cmd
	})
	if err != nil || d.socket == "" {
		return s, err
	}
	if p, ok := s.end.(*process); ok {
		s.end = &shared{p, d}
	}
	return s, nil
}

// shared is a process that speaks over the kept connection.
type shared struct {
	*process
	d *sshDialer
}

// kill ends the kept connection too: a link that is dead would make the next session wait as long as this one.
func (p *shared) kill(in io.Closer) {
	p.process.kill(in)
	_ = p.d.close()
}

// keep makes the connection that sessions share, unless there is one.
func (d *sshDialer) keep(ctx context.Context, options []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c, err := net.Dial("unix", d.socket); err == nil {
		return c.Close()
	}
	_ = os.Remove(d.socket) // of a connection that has ended
	// -f ends the call once the connection stands. What it said goes to a file, which is in memory: a pipe would stay
	// open with it, and there may be no directory for temporary files.
	fd, err := unix.MemfdCreate("emberfs-ssh", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	said := os.NewFile(uintptr(fd), "emberfs-ssh")
	defer said.Close()
	cmd := d.program(ctx, append(slices.Clone(options), "-M", "-N", "-f", "-o", "ControlPath="+sshWord(d.socket),
		"-o", fmt.Sprintf("ControlPersist=%d", int(masterIdle.Seconds())), "--", d.host)...)
	cmd.Stderr = said
	if err := cmd.Run(); err != nil {
		var words messages
		text := make([]byte, maxMessages)
		n, _ := said.ReadAt(text, 0)
		_, _ = words.Write(text[:n])
		return &saidError{service: "ssh", said: words.String(), err: errors.Join(ctx.Err(), err)}
	}
	return nil
}

// close ends the kept connection, and removes a key that was in no file before.
func (d *sshDialer) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := os.Lstat(d.socket); d.socket != "" && err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), killDelay)
		defer cancel()
		// It may have ended by itself.
		_ = d.program(ctx, "-o", "ControlPath="+sshWord(d.socket), "-O", "exit", "--", d.host).Run()
		for err == nil && ctx.Err() == nil { // the connection goes a moment after its answer
			time.Sleep(time.Millisecond)
			_, err = os.Lstat(d.socket)
		}
	}
	return d.key.close()
}

// shellWord quotes a word for a shell.
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
