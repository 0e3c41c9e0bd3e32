package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// criticalDelay is that of the rules here.
const criticalDelay = 500 * time.Millisecond

// critical measures what live commits cost, and how soon they come.
func (b *bench) critical() error {
	if err := b.with("emberfs", 3, "", (*subject).closeToCommit); err != nil {
		return err
	}
	if err := b.criticalDatabase(); err != nil {
		return err
	}
	return b.criticalStorm()
}

// rules writes the volume's rules.
func (s *subject) rules(text string) error {
	return os.WriteFile(filepath.Join(s.mnt, ".emberfs/rules.yaml"), []byte(text), 0o644)
}

// live is what the live branch points to; "": there is none.
func (s *subject) live() string {
	list, _ := filepath.Glob(filepath.Join(s.disk, "state/cold.git/refs/heads/emberfs-live/main/*"))
	for _, name := range list {
		if id, err := os.ReadFile(name); err == nil && !strings.HasSuffix(name, ".lock") {
			return string(id)
		}
	}
	return ""
}

// closeToCommit writes one critical file of very many again and again, and waits for it in the live branch; then
// nothing happens.
func (s *subject) closeToCommit() error {
	b := s.b
	if err := fill(s.mnt, b.size(100_000, 10_000), 100, 200, 7); err != nil {
		return err
	}
	if err := s.rules(fmt.Sprintf("- {match: \"d0007/f00700\", class: critical, critical_delay: %v}\n- {match: "+
		"\"**/*.state\", class: critical}\n", criticalDelay)); err != nil {
		return err
	}
	if _, err := b.commitQuietly(s); err != nil {
		return err
	}
	name := filepath.Join(s.mnt, "d0007/f00700")
	for round := range b.size(60, 10) {
		before := s.live()
		if err := os.WriteFile(name, fmt.Appendf(nil, "round %d", round), 0o644); err != nil {
			return err
		}
		start := time.Now()
		for s.live() == before {
			if time.Since(start) > time.Minute {
				return errors.New("a critical file is not committed")
			}
			time.Sleep(200 * time.Microsecond)
		}
		b.results.sample(rowCloseToCommit, milliseconds(time.Since(start)))
	}
	if _, err := b.commitQuietly(s); err != nil {
		return err
	}
	// What follows a commit, the merging of packs for one, is not idle: it ends, or this goes on without.
	for range 15 {
		if spent, err := s.spent(2 * time.Second); err != nil {
			return err
		} else if spent <= 20*time.Millisecond {
			break
		}
	}
	spent, err := s.spent(10 * time.Second)
	b.results.sample(rowIdle, milliseconds(spent))
	return err
}

// spent is what the daemon computes in some time.
func (s *subject) spent(span time.Duration) (time.Duration, error) {
	pid, err := s.pid() // the question itself costs the daemon something
	if err != nil {
		return 0, err
	}
	before, err := cpu(pid)
	if err != nil {
		return 0, err
	}
	time.Sleep(span)
	after, err := cpu(pid)
	return after - before, err
}

// cpu is the time that a process has computed.
func cpu(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var sum time.Duration
	for _, ticks := range f[11:13] { // utime, stime
		n, err := strconv.ParseInt(ticks, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * 10 * time.Millisecond
	}
	return sum, nil
}

// criticalDatabase compares the transactions of SQLite with a live commit each second and without.
func (b *bench) criticalDatabase() error {
	n := b.size(4000, 800)
	text := []byte("PRAGMA synchronous=FULL;\n")
	for range n {
		text = append(text, "INSERT INTO t(b) VALUES(randomblob(300));\n"...)
	}
	script := filepath.Join(b.dir, "transactions.sql")
	if err := os.WriteFile(script, text, 0o644); err != nil {
		return err
	}
	for _, mode := range []struct{ name, row string }{{"delete", rowCriticalRollback}, {"wal", rowCriticalWAL}} {
		for range max(b.rounds, 3) {
			var took [2]time.Duration
			for i, rules := range []string{"",
				"- {match: \"*.db{,-wal,-journal}\", class: critical, critical_delay: 1s}\n"} {
				if err := b.with("emberfs", 1, "backup_interval=1h", func(s *subject) (err error) {
					if err := s.rules(rules); err != nil {
						return err
					}
					if _, err := b.command(s.mnt, "sqlite3", "x.db", "PRAGMA journal_mode="+mode.name+
						"; CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)"); err != nil {
						return err
					}
					if _, err := b.commitQuietly(s); err != nil {
						return err
					}
					took[i], err = b.command(s.mnt, "sh", "-c", `exec sqlite3 x.db <"$1"`, "sh", script)
					return err
				}); err != nil {
					return err
				}
			}
			b.results.sample(mode.row, float64(took[0])/float64(took[1]))
		}
	}
	return nil
}

// criticalStorm makes small files as fast as it can, and takes what the daemon computes for one where none is critical
// off what it computes where all are: the rest is what the commits take of a core.
func (b *bench) criticalStorm() error {
	span := time.Duration(b.size(20, 8)) * time.Second
	var each time.Duration
	for _, rules := range []string{"", fmt.Sprintf("- {match: \"**\", class: critical, critical_delay: %v}\n",
		criticalDelay)} {
		s, err := b.newSubject("emberfs", 3, "backup_interval=1h")
		if err != nil {
			return err
		}
		if err := s.rules(rules); err != nil {
			return err
		}
		if _, err := b.commitQuietly(s); err != nil {
			return err
		}
		pid, err := s.pid()
		if err != nil {
			return err
		}
		before, err := cpu(pid)
		if err != nil {
			return err
		}
		start := time.Now()
		files := 0
		for ; time.Since(start) < span; files++ {
			dir := filepath.Join(s.mnt, fmt.Sprintf("d%04d", files/100))
			if files%100 == 0 {
				if err := os.Mkdir(dir, 0o755); err != nil {
					return err
				}
			}
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(files)), fmt.Append(nil, "file ", files),
				0o644); err != nil {
				return err
			}
		}
		took := time.Since(start)
		after, err := cpu(pid)
		if err != nil {
			return err
		}
		if rules == "" {
			each = (after - before) / time.Duration(files)
		} else {
			b.results.sample(rowStorm, float64(after-before-each*time.Duration(files))/float64(took)*100)
			b.results.sample(rowStormFiles, float64(files)/took.Seconds())
		}
		if err := s.destroy(); err != nil {
			return err
		}
	}
	return nil
}
