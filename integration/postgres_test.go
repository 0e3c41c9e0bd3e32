//go:build slow

package integration

import (
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// accountOf looks an account up.
func accountOf(t testing.TB, name string) user {
	t.Helper()
	u, err := osuser.Lookup(name)
	check(t, err)
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	check(t, err)
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	check(t, err)
	return user{uid: uint32(uid), gid: uint32(gid)}
}

// start runs a server on the data directory and waits until it answers.
func (p *postgres) start() *exec.Cmd {
	p.t.Helper()
	cmd := p.command("postgres", "-D", p.data, "-k", p.run, "-c", "listen_addresses=", "-c", "shared_buffers=16MB").prepare(p.t.Context())
	log, err := os.OpenFile(filepath.Join(p.run, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	check(p.t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	check(p.t, cmd.Start())
	p.t.Cleanup(func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL); _ = cmd.Wait() })
	if !waitFor(time.Minute, func() bool { return p.command("pg_isready", "-h", p.run).succeeds() }) {
		b, _ := os.ReadFile(filepath.Join(p.run, "server.log"))
		p.t.Fatalf("the server does not come up:\n%s", clip(string(b)))
	}
	return cmd
}

// recovers starts a server on a data directory whose server died, and checks that it is sound and has at least so many rows.
func (p *postgres) recovers(atLeast int) {
	p.t.Helper()
	check(p.t, removeIfThere(filepath.Join(p.data, "postmaster.pid")))
	server := p.start()
	out := strings.TrimSpace(p.client("psql", "-Atc", "SELECT count(*) FROM pgbench_history", "bench"))
	if n, err := strconv.Atoi(out); err != nil || n < atLeast {
		p.t.Errorf("%s: %s transactions after recovery, want at least %d", p.data, out, atLeast)
	}
	// what the history says adds up to what the accounts hold
	sums := strings.TrimSpace(p.client("psql", "-Atc", "SELECT (SELECT coalesce(sum(delta),0) FROM pgbench_history) = (SELECT sum(abalance) FROM pgbench_accounts) AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(tbalance) FROM pgbench_tellers)", "bench"))
	if sums != "t" {
		p.t.Errorf("%s: the accounts do not add up after recovery: %s", p.data, sums)
	}
	p.client("pg_amcheck", "--install-missing", "bench")
	check(p.t, server.Process.Signal(unix.SIGINT)) // fast shutdown
	if err := server.Wait(); err != nil {
		p.t.Errorf("%s: shutdown: %v", p.data, err)
	}
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}
