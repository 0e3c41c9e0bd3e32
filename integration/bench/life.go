package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// life measures what a machine's beginning and end take: the program, the start, the first look at many files, and the
// final backup to a local repository.
func (b *bench) life() error {
	fi, err := os.Stat(b.emberfs)
	if err != nil {
		return err
	}
	b.results.sample(rowBinary, float64(fi.Size())/1e6)
	for round := range max(b.rounds, 3) {
		fmt.Fprintf(os.Stderr, "bench: life round %d\n", round+1)
		for _, f := range []func(s *subject) error{
			func(s *subject) error {
				return s.finalBackup(rowFinalSmall, func(dir string) error {
					return fill(dir, b.size(10_000, 2_000), 100, 4096, int64(round))
				})
			},
			func(s *subject) error {
				return s.finalBackup(rowFinalBig, func(dir string) error {
					for i := range b.size(100, 20) {
						name := filepath.Join(dir, fmt.Sprintf("big%d", i))
						if err := fillFile(name, 1, int64(100*round+i)); err != nil {
							return err
						}
					}
					return nil
				})
			},
		} {
			if err := b.with("native", 2, "", f); err != nil {
				return err
			}
		}
	}
	return b.with("native", 4, "", (*subject).boots)
}

// machine is a mount of a repository with a state directory of its own.
type machine struct {
	s          *subject
	mnt, state string
}

// machine prepares directories for a mount of repo by this name.
func (s *subject) machine(name string) (machine, error) {
	m := machine{s, filepath.Join(filepath.Dir(s.disk), name), filepath.Join(s.disk, name)}
	return m, os.MkdirAll(m.mnt, 0o755)
}

func (m machine) mount(repo string) (time.Duration, error) {
	return m.s.b.command("/", m.s.b.emberfs, "mount", repo, m.mnt, "--state", m.state)
}

func (m machine) umount() (time.Duration, error) {
	return m.s.b.command("/", m.s.b.emberfs, "umount", m.mnt, "--deadline", "5m")
}

// bare makes a bare repository on the subject's disk.
func (s *subject) bare(name string) (string, error) {
	repo := filepath.Join(s.disk, name)
	_, err := s.b.command("/", "git", "init", "-q", "--bare", "-b", "main", repo)
	return repo, err
}

// finalBackup measures an unmount that has to back up everything, beside git's commit of the same files.
func (s *subject) finalBackup(row string, work func(dir string) error) error {
	b := s.b
	plain := filepath.Join(s.disk, "plain")
	if _, err := b.command("/", "git", "init", "-q", "-b", "main", plain); err != nil {
		return err
	}
	if err := work(plain); err != nil {
		return err
	}
	if err := s.timed(row, plain, "sh", "-euc", "git config gc.auto 0; git add -A; git commit -qm x"); err != nil {
		return err
	}
	repo, err := s.bare("repo.git")
	if err != nil {
		return err
	}
	m, err := s.machine("final")
	if err != nil {
		return err
	}
	if _, err := m.mount(repo); err != nil {
		return err
	}
	if err := work(m.mnt); err != nil {
		_, uerr := m.umount()
		return errors.Join(err, uerr)
	}
	took, err := m.umount()
	if err != nil {
		return err
	}
	b.results.add(row, "emberfs", float64(took.Microseconds())/1000)
	b.results.sample(row+alone, float64(took.Microseconds())/1000)
	return nil
}

// boots measures mounts of an empty volume and of one with many files, to the first bytes read of it, by machines that
// have nothing yet; and ends of sessions.
func (s *subject) boots() error {
	b, n := s.b, s.b.size(100_000, 10_000)
	empty, err := s.bare("empty.git")
	if err != nil {
		return err
	}
	many, err := s.bare("many.git")
	if err != nil {
		return err
	}
	first, err := s.machine("first")
	if err != nil {
		return err
	}
	if _, err := first.mount(many); err != nil {
		return err
	}
	err = fill(first.mnt, n, 100, 200, 11)
	if _, uerr := first.umount(); err != nil || uerr != nil {
		return errors.Join(err, uerr)
	}
	for round := range max(b.rounds, 5) {
		var took [2]time.Duration
		for i, repo := range []string{empty, many} {
			m, err := s.machine(fmt.Sprintf("boot%d-%d", i, round))
			if err != nil {
				return err
			}
			start := time.Now()
			if _, err := m.mount(repo); err != nil {
				return err
			}
			if i == 1 {
				if _, err := os.ReadFile(filepath.Join(m.mnt, "d0001/f00100")); err != nil {
					return err
				}
			} else if _, err := os.ReadDir(m.mnt); err != nil {
				return err
			}
			took[i] = time.Since(start)
			if err := s.session(m, i == 0); err != nil {
				return err
			}
		}
		b.results.sample(rowStart, float64(took[0].Microseconds())/1000)
		b.results.sample(rowBoot, float64((took[1]-took[0]).Microseconds())/1000)
	}
	return nil
}

// session measures the memory of an idle daemon, and the ends of a session: after nothing, and after a sync, when the
// end is all that there is to say.
func (s *subject) session(m machine, measure bool) error {
	if measure {
		if err := (&subject{b: s.b, kind: "emberfs", mnt: m.mnt, disk: s.disk}).memory(rowMemoryIdle); err != nil {
			return err
		}
	}
	took, err := m.umount()
	if err != nil || measure {
		return err
	}
	s.b.results.sample(rowEndNothing, float64(took.Microseconds())/1000)
	if _, err := m.mount(filepath.Join(s.disk, "many.git")); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(m.mnt, "changed"), []byte(m.state), 0o644); err != nil {
		return err
	}
	if _, err := s.b.command("/", s.b.emberfs, "sync", m.mnt); err != nil {
		return err
	}
	if took, err = m.umount(); err == nil {
		s.b.results.sample(rowEndSynced, float64(took.Microseconds())/1000)
	}
	return err
}
