package tiers

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/subprocess"
	"emberfs/tiers/warm"
)

// Volume is the storage manager: one mounted volume with its three tiers. Its methods are safe for concurrent use.
// Errors are syscall.Errno, possibly wrapped, where a system call failed; fs maps the others.
//
// It is made of components, each with fields and files of its own, in the order of doc.go: a component uses those above
// it in this list.
type Volume struct {
	basis                     // base.go: configuration, state, what is at risk, the kernel
	nodes                     // inode.go: warm's directory, inodes and their names, records, marks, pre-images
	ruling                    // rules_book.go
	critical     critical     // critical_notes.go
	budget       budget       // budget.go
	direct       direct       // direct.go
	contents                  // io.go
	restored     restored     // lazy_origin.go: the commit that lazy directories are read by
	links        pendingLinks // lazy_links.go
	memory       memory       // memory.go
	commits                   // commit.go
	ageing                    // tier_loop.go
	housekeeping              // volume_upkeep.go
}

// Open opens the state directory c.State, which the caller has locked, brings warm to the branch's last commit where it
// has nothing of its own, and decides whether records of the last run can be believed. Errors leave warm usable for
// another try.
func Open(ctx context.Context, c Config) (_ *Volume, err error) {
	subprocess.ClearUmask()
	st, err := warm.LoadState(c.State)
	if err != nil {
		return nil, err
	}
	v := &Volume{
		basis: basis{patience: closePatience, cfg: c, cold: c.Cold, log: c.Log, state: st},
		nodes: nodes{warmFD: -1, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), mayChown: os.Geteuid() == 0},
	}
	v.errands.init()
	v.SetAtime(c.Atime)
	v.pusher.init()
	v.risk.seed = maphash.MakeSeed()
	v.budget.init(&v.risk)
	v.syncing, v.upkeep = make(chan struct{}, 1), make(chan struct{}, 1)
	v.gcInterval, v.marksInMemory = cold.DefaultGrace, marksInMemory
	v.collect, v.idle = make(chan collection), make(chan struct{})
	v.table.init(maxInodes(c.MemoryLimit))
	v.epoch.Store(1)
	v.openedAt, v.coldReads = time.Now(), newColdReader(c.Cold)
	v.pressure = pressure{wake: make(chan struct{}, 1), room: make(chan chan<- int64)}
	v.settling.wake, v.critical.wake, v.backupBy = make(chan struct{}, 1), make(chan struct{}, 1),
		make(chan struct{}, 1)
	v.direct.lingering.wake = make(chan struct{}, 1)
	v.recalls, v.idleTiers = make(chan *Inode, 4*recallMost), make(chan struct{})
	round := make(chan struct{})
	v.round.Store(&round)
	if err := v.openWarm(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			unix.Close(v.warmFD)
		}
	}()
	clean := st.Clean
	if err := v.decideTrust(); err != nil {
		return nil, err
	}
	if err := v.loadHeld(); err != nil {
		return nil, err
	}
	v.hot = newHot(HotBytes(c.MemoryLimit))
	if err := v.openRoot(); err != nil {
		return nil, err
	}
	if err := v.loadRules(); err != nil {
		return nil, err
	}
	v.contact.last, v.contact.noted = st.Contact, st.Contact
	if err := v.catchUp(ctx); err != nil {
		var offline *OfflineError
		var incomplete *IncompleteError
		if (errors.As(err, &offline) || errors.As(err, &incomplete)) && clean { // nothing was touched
			err = errors.Join(err, st.Update(func(s *warm.StateFile) { s.Clean = true }))
		}
		return nil, err
	}
	if err := v.loadLinks(ctx); err != nil {
		return nil, err
	}
	err = st.Update(func(s *warm.StateFile) {
		s.Volume, s.Branch, s.Source = c.Cold.VolumeID(), c.Branch, c.Source
		s.Clean = false
		v.putContact(s)
	})
	if err != nil {
		return nil, err
	}
	v.openMemory()
	return v, nil
}

// openWarm opens, or makes, the warm directory and finds out what its file system can do.
func (v *Volume) openWarm() error {
	path := filepath.Join(v.cfg.State, warm.DirName)
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the warm directory: %w", err)
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	v.warmFD = fd
	var sx unix.Statx_t
	if err := warm.StatAt(fd, "", &sx); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	if sx.Mask&unix.STATX_BTIME == 0 {
		v.log.Warn("warm's file system has no birth times: a reused inode number is told apart only while its file " +
			"is open")
	}
	v.warmMount = sx.Mnt_id // 0 before Linux 5.8: then openat2 alone keeps us inside
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return fmt.Errorf("statfs %s: %w", path, err)
	}
	v.fsType = fs.Type
	v.noatime, v.relatime = fs.Flags&unix.ST_NOATIME != 0, fs.Flags&unix.ST_RELATIME != 0
	v.records, v.times = takesRecords(fd), warm.TimesOf(fd)
	v.dirs.init()
	return nil
}

// takesRecords finds out whether files in the directory behind fd take our attributes: by trying, not by uid, since
// capabilities, user namespaces and file systems all have a say; and on a file of its own, since an attribute moves the
// ctime of what has it.
func takesRecords(fd int) bool {
	probe, err := warm.OpenAt(fd, ".", unix.O_TMPFILE|unix.O_RDWR, 0600)
	if err != nil {
		name := warm.TempPrefix + "probe"
		if probe, err = warm.OpenAt(fd, name, unix.O_RDWR|unix.O_CREAT, 0600); err != nil {
			return false
		}
		defer func() { _ = unix.Unlinkat(fd, name, 0) }()
	}
	defer unix.Close(probe)
	return unix.Fsetxattr(probe, warm.RecordAttr, []byte{warm.RecordVersion}, 0) == nil
}

// decideTrust compares this start with the last one: within one boot, or after a clean stop, records are believed.
// Otherwise the trust number rises. It refuses a warm whose stubs cannot be told from files here.
func (v *Volume) decideTrust() error {
	boot, err := warm.BootID()
	if err != nil {
		return err
	}
	s := v.state
	if s.Tiered && !v.records {
		return fmt.Errorf("bytes of files in %s may be in cold only, which trusted.* attributes say that this "+
			"process can not read (CAP_SYS_ADMIN is missing, or the file system has none): their holes would be "+
			"taken for zeros", v.cfg.State)
	}
	if err := s.ProveWarm(v.warmFD); err != nil {
		return fmt.Errorf("%s: %w", v.cfg.State, err)
	}
	tiered := v.checkTiering() == nil
	mark := tiered && !s.Marked // also in volumes that an earlier version made
	if mark {
		if err := v.markWarm(); err != nil {
			return err
		}
	}
	v.doubtful = !s.Clean || s.Pending
	if empty, err := v.warmEmpty(); err == nil {
		v.untouched = !v.doubtful || empty && s.Head == "" && s.Restore == ""
	}
	trusted := s.Clean || s.Boot == boot || s.Boot == ""
	err = s.Update(func(f *warm.StateFile) {
		f.Boot = boot
		if !trusted {
			f.Cut = true
			f.Trust++
			if f.Trust == 0 { // every number was used: none of the old records may be left
				f.Trust = 1
			}
		}
		f.Clean = false
		f.Tiered, f.Marked = f.Tiered || tiered, f.Marked || mark
	})
	v.trust, v.afterCut = s.Trust, !trusted
	v.direct.inherited = s.Direct == boot
	v.direct.shared.Store(v.direct.inherited)
	v.points.verified.Store(trusted)
	return err
}

// closePatience is how long Close waits for a repository that does not answer.
const closePatience = time.Minute

// quiesce stops all work in the background, and says whether it has stopped. Work that hangs in a system call on the
// repository does not stop; quiesce waits no longer than v.patience for it.
func (v *Volume) quiesce() bool {
	if v.stop != nil {
		v.stop()
	}
	v.errands.end()
	v.coldReads.end()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		v.wg.Wait()
		v.errands.under.Wait()
		v.coldReads.under.Wait()
		v.coldCount.end()
	}()
	select {
	case <-stopped:
		return true
	case <-time.After(v.patience):
		return false
	}
}

// Close stops the background work, makes warm durable and records the clean stop. The caller makes the last Sync
// before.
func (v *Volume) Close() error {
	if v.closed.Swap(true) {
		return nil
	}
	if !v.quiesce() {
		return fmt.Errorf("the repository of %s has not answered for %v: the volume is left as a killed daemon "+
			"leaves it, "+
			"which loses nothing; the next start looks at everything", v.cfg.State, v.patience)
	}
	v.coldReads.drop()
	memErr := v.EndMemory()
	v.syncing <- struct{}{}
	defer func() { <-v.syncing }()
	v.endPushes()
	err := unix.Syncfs(v.warmRead())
	if err != nil {
		err = fmt.Errorf("make warm durable: %w", err)
	} else {
		err = v.state.Update(func(s *warm.StateFile) {
			s.Clean, s.Pending, s.Cut = true, v.risk.files() > 0 || v.risk.late().files > 0, false
			v.putContact(s)
		})
	}
	v.hot.close()
	v.atime.quiet.close()
	v.atime.strict.close()
	return errors.Join(err, memErr, v.held.Close(), v.cold.Close(), unix.Close(v.warmRead()), unix.Close(v.warmFD))
}
