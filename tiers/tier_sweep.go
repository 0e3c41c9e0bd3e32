package tiers

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/rules"
	"emberfs/tiers/warm"
)

// Tier makes stubs of all files under paths (slash paths from the root; none: everything) that are clean, safe and not
// open, whatever their age. What is not committed is committed, and pushed, first; the error says that this failed, and
// what was safe before has left warm all the same. It returns ErrNoTiering if files do not leave warm here, and ENOENT,
// wrapped, if a path does not exist.
func (v *Volume) Tier(ctx context.Context, paths []string) (TierReport, error) {
	if err := v.checkTiering(); err != nil {
		return TierReport{}, err
	}
	want := cold.CleanPaths(paths)
	for _, p := range want {
		n, err := v.find(ctx, p)
		if err != nil {
			return TierReport{}, fmt.Errorf("%s: %w", p, err)
		}
		n.vol.unref(n, 1)
	}
	rc, failed := v.Sync(ctx, "tier")
	if failed == nil && !rc.Complete && len(rc.Missing) > 0 {
		failed = errors.New(rc.Missing[0])
	}
	if ctx.Err() != nil {
		return TierReport{}, context.Cause(ctx)
	}
	s := v.newSweep(ctx, "command")
	s.want = want
	s.remote = &remoteCheck{asked: true, has: rc == nil || rc.Pushed || rc.Remote == ""}
	v.sweeping.Lock()
	err := s.run()
	v.sweeping.Unlock()
	v.noteTick(s.report)
	if failed != nil {
		s.report.Kept[KeptUncommitted] = max(1, s.report.Kept[keptChanged])
	}
	return s.report, errors.Join(err, failed)
}

// sweep is one walk over what warm holds, which counts and releases. One runs at a time (Volume.sweeping).
type sweep struct {
	v      *Volume
	ctx    context.Context
	report TierReport
	want   []string           // paths from CleanPaths: what may be released; nil: everything
	age    time.Duration      // what was not used for longer is released
	byAge  bool               // rules may have ages of their own
	most   int64              // bytes to release; 0: no bound
	count  *[ageBuckets]int64 // bytes by age; if not nil, nothing is released
	use    warm.Use           // what warm holds, as far as the walk has come
	err    error              // the first failure
	remote *remoteCheck
}

// remoteCheck asks the remote once a round, when there is something to release, whether it has what was committed.
type remoteCheck struct {
	asked, has bool
}

func (r *remoteCheck) ask(ctx context.Context, v *Volume) bool {
	if !r.asked {
		r.asked, r.has = true, true
		if v.cold.HasRemote() {
			r.has = v.pushNow(ctx) == nil // this also brings back what the remote has lost
		}
	}
	return r.has
}

func (v *Volume) newSweep(ctx context.Context, reason string) *sweep {
	return &sweep{v: v, ctx: ctx, remote: &remoteCheck{}, report: TierReport{Reason: reason, Time: time.Now(),
		Kept: map[string]int64{}}}
}

// run walks over warm. Failures of single files do not end the walk: they are counted and logged, and the first one is
// returned.
func (s *sweep) run() error {
	v := s.v
	before := v.warmBytes.Load()
	v.ref(v.root)
	err := s.dir(v.root, "", s.want, 0)
	v.unref(v.root, 1)
	s.report.Took = time.Since(s.report.Time)
	if err == nil && s.want == nil && !s.done() {
		// warmBytes already has what was written or released during the walk.
		v.warmBytes.Add(s.use.Bytes + s.report.Bytes - before)
	}
	return errors.Join(err, s.err)
}

// dir walks over one directory, and all below it.
func (s *sweep) dir(n *Inode, at string, want []string, depth int) error {
	v := s.v
	if cold.TooDeepToWalk(at, depth) != nil || n.dir.lazy.Load() {
		return nil // what is too deep for commits cannot leave warm, and a lazy directory holds no files
	}
	return v.eachEntry(s.ctx, n, func(fd int, d *warm.Dirent) error {
		below, _, skip := cold.Wanted(want, d.Name)
		if skip || s.done() {
			return nil
		}
		if d.Mode == unix.S_IFREG {
			s.file(n, fd, path.Join(at, d.Name), d.Name)
			return nil
		}
		sub, _, err := v.lookupAt(s.ctx, n, fd, d.Name)
		if err != nil {
			return nil // moved away or removed
		}
		defer v.unref(sub, 1)
		if sub.dir == nil {
			return nil
		}
		return s.dir(sub, path.Join(at, d.Name), below, depth+1)
	})
}

// done says that enough was released.
func (s *sweep) done() bool { return s.most > 0 && s.report.Bytes >= s.most }

func gone2nil(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return err
}

// file counts a file, and releases it where it is old enough.
func (s *sweep) file(dir *Inode, dirfd int, at, name string) {
	v := s.v
	var st unix.Statx_t
	if warm.StatAt(dirfd, name, &st) != nil {
		return
	}
	if st.Blocks == 0 || warm.EmptyStub(dirfd, name, &st) {
		return
	}
	bytes := int64(st.Blocks) * 512 / int64(max(1, st.Nlink))
	s.use.Files++
	s.use.Bytes += bytes
	idle := v.unusedFor(v.peek(&st), &st)
	if s.count != nil {
		s.count[ageBucket(idle)] += bytes
		return
	}
	age := s.ageAt(at)
	if idle < age {
		s.report.Kept[keptYoung]++
		return
	}
	if !v.points.verified.Load() {
		s.report.Kept[keptDoubtful]++
		return
	}
	n, _, err := v.lookupAt(s.ctx, dir, dirfd, name)
	if err != nil {
		return
	}
	defer v.unref(n, 1)
	if n.kind != cold.KindFile {
		return
	}
	if n.stub.Load() { // the daemon was killed between the mark and the hole
		s.punch(n)
		return
	}
	unused := func() bool { return v.unusedFor(n, &st) >= age }
	freed, kept, err := v.release(s.ctx, n, unused, func() bool { return s.remote.ask(s.ctx, v) })
	if err != nil && s.ctx.Err() == nil {
		v.log.WithError(err).WithField("path", at).Warn("a file cannot leave warm")
		if s.err == nil {
			s.err = fmt.Errorf("%s: %w", at, err)
		}
		if kept == "" {
			kept = keptFailed
		}
	}
	if kept != "" {
		s.report.Kept[kept]++
	}
	if freed > 0 {
		s.report.Files++
		s.report.Bytes += freed
		s.use.Files--
		s.use.Bytes -= bytes
	}
}

// ageAt returns the age at which the file at a path leaves warm.
func (s *sweep) ageAt(at string) time.Duration {
	if set := s.v.Rules(); s.byAge && set.HasAges() {
		if r := set.Decide(at, false).Rule; r != nil && r.WarmAge == rules.Never {
			return never
		} else if r != nil && r.WarmAge > 0 {
			return r.WarmAge
		}
	}
	return s.age
}

// never is an age that no file has.
const never = time.Duration(math.MaxInt64)

// punch removes the bytes of a stub from warm, which a daemon was about to do when it was killed.
func (s *sweep) punch(n *Inode) {
	n.back.Lock()
	defer n.back.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.mu.rec.IsStub() {
		return
	}
	fd, err := s.v.openNode(n, unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if err := s.v.punch(n, fd); err != nil {
		s.v.log.WithError(err).Warn("a file cannot leave warm")
	}
}

// ageBuckets is the number of buckets that files are counted in by age. Each bucket ends at an age that is an eighth
// greater than that of the one before; the first ends at useTick.
const ageBuckets = 8 * 40

func ageBucket(age time.Duration) int {
	b := 0
	for t := useTick; t < age && b < ageBuckets-1; b++ {
		t += t/8 + 1
	}
	return b
}

// bucketAge returns the least age in a bucket.
func bucketAge(bucket int) time.Duration {
	t := time.Duration(0)
	for b := 0; b < bucket; b++ {
		if t = max(t, useTick); b > 0 {
			t += t/8 + 1
		}
	}
	return t
}

// evict releases the least recently used files until it has freed as many bytes as excess asks for, which is called
// once, after warm was counted. The report says how many bytes that freed.
func (v *Volume) evict(ctx context.Context, reason string, excess func(use warm.Use) int64) (TierReport, error) {
	v.sweeping.Lock()
	defer v.sweeping.Unlock()
	first := v.newSweep(ctx, reason)
	first.count = new([ageBuckets]int64)
	if err := first.run(); err != nil {
		return first.report, err
	}
	want := excess(first.use)
	if want <= 0 {
		return first.report, nil
	}
	// Dirty and open files are counted, but cannot be released. So the age bound moves towards younger files until
	// enough is freed.
	total := v.newSweep(ctx, reason)
	sum, walks := int64(0), 0
	for b := ageBuckets - 1; b >= 0; b-- {
		sum += first.count[b]
		if left := want - total.report.Bytes; b > 0 && (sum < left || walks == mostWalks-1) {
			continue
		}
		s := v.newSweep(ctx, reason)
		s.remote = total.remote
		s.age, s.most = bucketAge(b), want-total.report.Bytes
		err := s.run()
		total.report.Files += s.report.Files
		total.report.Bytes += s.report.Bytes
		total.report.Kept = s.report.Kept
		if err != nil || total.report.Bytes >= want {
			return total.report, err
		}
		sum = 0
		walks++
	}
	return total.report, nil
}

// mostWalks bounds the walks over warm of one eviction after counting; the last one takes files of any age.
const mostWalks = 4
