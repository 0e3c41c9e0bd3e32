//go:build slow

package integration

import (
	"fmt"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
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

// postgres runs the programs of a PostgreSQL as a user of their own.
type postgres struct {
	t              *testing.T
	bin, data, run string
	as             user
}

func (p *postgres) command(name string, args ...string) command {
	path := filepath.Join(p.bin, name)
	if _, err := os.Stat(path); err != nil {
		path = name
	}
	return command{args: append([]string{path}, args...), as: p.as, dir: p.run, limit: 2 * time.Minute}
}

func (p *postgres) must(name string, args ...string) {
	p.t.Helper()
	p.command(name, args...).must(p.t)
}

func (p *postgres) client(name string, args ...string) string {
	p.t.Helper()
	return p.command(name, append([]string{"-h", p.run, "-U", "postgres"}, args...)...).must(p.t)
}

// newPostgres finds the programs.
func newPostgres(t *testing.T) *postgres {
	t.Helper()
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(bins) == 0 {
		t.Fatalf("PostgreSQL is needed; scripts/test installs it: %v", err)
	}
	as := accountOf(t, "nobody") // initdb wants a user with a name, and the package does not make one everywhere
	return &postgres{t: t, bin: bins[len(bins)-1], as: as, run: mkdir(t, filepath.Join(testDir(t), "sock"), as)}
}

// initialize makes a cluster with a database for pgbench and a table of ours, acked, and gives its server, which runs.
func (p *postgres) initialize(data string) *exec.Cmd {
	p.t.Helper()
	p.data = data
	p.must("initdb", "-D", p.data, "-A", "trust", "-U", "postgres", "--no-locale", "-E", "UTF8")
	server := p.start()
	p.client("createdb", "bench")
	p.client("pgbench", "-i", "-q", "-s", "2", "bench")
	p.client("psql", "-qc", "CREATE TABLE acked(n int)", "bench")
	return server
}

// cluster is initialize for tests that are not about it: it copies a cluster that is made once.
func (p *postgres) cluster(data string) *exec.Cmd {
	p.t.Helper()
	template := filepath.Join(env.base, "pgtemplate")
	if _, err := os.Stat(template); err != nil {
		made := filepath.Join(mkdir(p.t, filepath.Join(testDir(p.t), "template"), p.as), "data")
		p.stop(p.initialize(made))
		check(p.t, os.Rename(made, template))
	}
	must(p.t, "/", "cp", "-a", template, data)
	p.data = data
	return p.start()
}

// stop shuts a server down.
func (p *postgres) stop(server *exec.Cmd) {
	p.t.Helper()
	check(p.t, server.Process.Signal(unix.SIGINT)) // fast shutdown
	if err := server.Wait(); err != nil {
		p.t.Errorf("%s: shutdown: %v", p.data, err)
	}
}

// underLoad makes a cluster in the mount and has pgbench and an inserter of ours work in it while take takes commits.
// It gives the commits, and how many transactions of ours were acknowledged in the end.
func (p *postgres) underLoad(v *volume, take func(acked func() int64) []takenCommit) (taken []takenCommit,
	transactions int64) {
	p.t.Helper()
	mkdir(p.t, v.at("pg"), p.as)
	server := p.cluster(v.at("pg/data"))
	v.sync()
	load := p.command("pgbench", "-n", "-h", p.run, "-U", "postgres", "-c", "4", "-T", "3600", "bench").prepare(
		p.t.Context())
	check(p.t, load.Start())
	ours := p.insertsInto("acked")
	taken = take(ours.last.Load)
	ours.stop()
	check(p.t, unix.Kill(-load.Process.Pid, unix.SIGKILL))
	_ = load.Wait()
	p.stop(server)
	if transactions = ours.last.Load(); transactions < enoughAcked {
		p.t.Errorf("no progress: %d", transactions)
	}
	return taken, transactions
}

// restoredWhole restores some of the commits, each alone: the server recovers, and has all that was acknowledged before
// the commit began.
func (p *postgres) restoredWhole(v *volume, taken []takenCommit) {
	p.t.Helper()
	for _, c := range spread(taken, effort.Count(p.t, 5, 80)) {
		p.data = filepath.Join(v.restoreCommit(c.id), "pg/data")
		p.recovers(0, func() { p.hasRows(c.acked) })
	}
}

// insertsInto inserts 1, 2, 3... into a table, each in a transaction of its own.
func (p *postgres) insertsInto(table string) *acks {
	p.t.Helper()
	lookPath(p.t, "stdbuf")
	return acknowledged(p.t, p.command("sh", "-c", `i=0; while :; do i=$((i+1)); printf 'INSERT INTO `+table+` VALUES(%d);\n\\echo %d\n' $i $i; done |
		stdbuf -oL psql -q -v ON_ERROR_STOP=1 -h `+p.run+` -U postgres bench`))
}

// hasRows checks that the running server has the transactions that were acknowledged.
func (p *postgres) hasRows(acked int64) {
	p.t.Helper()
	out := strings.TrimSpace(p.client("psql", "-Atc", "SELECT coalesce(max(n),0), count(*) FROM acked", "bench"))
	var last, rows int64
	if _, err := fmt.Sscanf(out, "%d|%d", &last, &rows); err != nil || last < acked || last != rows {
		p.t.Errorf("%s: %s (last, rows), %d were acknowledged", p.data, out, acked)
	}
}

// start runs a server on the data directory and waits until it answers.
func (p *postgres) start() *exec.Cmd {
	p.t.Helper()
	cmd := p.command("postgres", "-D", p.data, "-k", p.run, "-c", "listen_addresses=", "-c",
		"shared_buffers=16MB").prepare(p.t.Context())
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

// recovers starts a server on a data directory whose server died, and checks that it is sound and has at least so many
// rows; also is what else to look at while it runs.
func (p *postgres) recovers(atLeast int, also ...func()) {
	p.t.Helper()
	check(p.t, removeIfThere(filepath.Join(p.data, "postmaster.pid")))
	server := p.start()
	out := strings.TrimSpace(p.client("psql", "-Atc", "SELECT count(*) FROM pgbench_history", "bench"))
	if n, err := strconv.Atoi(out); err != nil || n < atLeast {
		p.t.Errorf("%s: %s transactions after recovery, want at least %d", p.data, out, atLeast)
	}
	// what the history says adds up to what the accounts hold
	sums := strings.TrimSpace(p.client("psql", "-Atc", "SELECT (SELECT coalesce(sum(delta),0) FROM pgbench_history) "+
		"= (SELECT sum(abalance) FROM pgbench_accounts) AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT "+
		"sum(tbalance) FROM pgbench_tellers)", "bench"))
	if sums != "t" {
		p.t.Errorf("%s: the accounts do not add up after recovery: %s", p.data, sums)
	}
	p.client("pg_amcheck", "--install-missing", "bench")
	for _, look := range also {
		look()
	}
	p.stop(server)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}
