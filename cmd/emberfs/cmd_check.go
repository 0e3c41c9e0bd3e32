package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"emberfs/backup/format"
	"emberfs/backup/fsck"
	"emberfs/tiers/cold"
	"emberfs/tiers/inspect"
	"emberfs/tiers/warm"
)

// checkRequest holds the arguments of `emberfs check`.
type checkRequest struct {
	target string
	deep   bool
	repair bool
	asJSON bool
}

func checkCommand(w world) *cobra.Command {
	var r checkRequest
	cmd := &cobra.Command{
		Use:   "check STATE|REPOSITORY|MOUNTPOINT [--deep] [--repair] [--json]",
		Short: "Say whether a volume is sound, what is damaged and what is at risk",
		Long: `This command says whether a volume is sound, what is damaged and what is at risk. It takes a
state directory, a mountpoint or a bare repository alone. Each finding is a line with where it is and what
to do about it: "damaged" (something is lost, or will be at the next use), "risk" (all is there, but not
where it would survive the loss of machine and disk) or "note". The last line says "sound" or the number of
problems; risks and notes are none.

The command looks at volume.json, the configuration, references, packs and indexes of the repository, at everything
that the last commit needs, and at the files in the warm tier by their records, sizes and times. It looks in the cold
tier for files and directories that are only there; what is missing of them is damage. With --deep it also reads and
hashes every object, walks the whole history and compares every clean file with its commit. A state directory is
locked meanwhile; a mounted volume is checked beside its daemon.

Nothing is changed but with --repair, which names each step before it takes it, takes only steps that lose no bytes,
and checks again. A mounted volume is refused. The repair removes what dead processes left, makes new indexes, and
saves what can be read of damaged packs. It gets missing and damaged objects again from the remote, where that is a
path, and from the files in the warm tier whose bytes have the right hash. It sets a branch that points to nothing
to the newest whole commit that the remote has or that the warm tier is of, and sets the configuration. Files that
their records wrongly call unchanged count as changed afterwards, so that the next commit takes them as they are, and
that commit also stores directories of the last commit again that nobody has any more. With --deep the repair also
writes packs with damaged objects anew. What it replaces is kept in the directories emberfs_broken and
objects/pack/emberfs_bad of the repository.

With --json the command prints an object with target, state, repository, volume, branch, commit, pushed, pid, deep,
sound, problems, at_risk and findings, and after a repair also repairs and before, which is what it found before. It
exits 0 where the volume is sound, 1 where it could not be checked, and 3 where something is damaged, or still is
after the repair.`,
		Example: `  emberfs check /srv/git/work.git
  emberfs check /data/scratch --deep --repair`,
		DisableFlagsInUseLine: true,
		Args:                  argsBetween(1, 1, "STATE, REPOSITORY or MOUNTPOINT"),
	}
	cmd.Flags().BoolVar(&r.deep, "deep", false, "read and hash every object, the whole history and every clean file")
	cmd.Flags().BoolVar(&r.repair, "repair", false,
		"make good what can be made good without losing a byte, then check again")
	cmd.Flags().BoolVar(&r.asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.target = args[0]
		ctx, stop := w.interrupts()
		defer stop()
		err := check(ctx, r, w)
		if err != nil && ctx.Err() != nil {
			err = &failure{code: exitFailed, op: "check", path: r.target, err: errors.New("interrupted")}
		}
		return withCode(exitFailed, "check", r.target, err)
	}
	return cmd
}

// checkReport is what `emberfs check --json` prints.
type checkReport struct {
	Target     string         `json:"target"`
	State      string         `json:"state"` // "" if the target is a repository without a state directory
	Repository string         `json:"repository"`
	Volume     string         `json:"volume"`
	Branch     string         `json:"branch"`
	Commit     string         `json:"commit"` // the branch's tip; "" if there is none
	Pushed     string         `json:"pushed"` // what the remote is known to have
	PID        int            `json:"pid"`    // the daemon that has the volume mounted; 0: none
	Deep       bool           `json:"deep"`
	Sound      bool           `json:"sound"`
	Problems   int            `json:"problems"` // number of findings that are damage
	AtRisk     *cold.AtRisk   `json:"at_risk,omitempty"`
	Findings   []cold.Finding `json:"findings"`
	// With --repair: the findings before the repair, and what was done about them.
	Before  []cold.Finding `json:"before,omitempty"`
	Repairs []repairStep   `json:"repairs,omitempty"`
}

// repairStep is one thing that --repair did or tried to do.
type repairStep struct {
	What   string `json:"what"`
	Where  string `json:"where"`
	Result string `json:"result,omitempty"`
	Error  string `json:"error,omitempty"` // why it could not be done
}

// checkTarget is where the volume is. If no daemon has it mounted, it is locked.
type checkTarget struct {
	state string // "": a repository without a state directory
	repo  string
	pid   int      // the daemon's
	live  bool     // somebody else holds the lock
	lock  *os.File // the lock, if we hold it
}

func check(ctx context.Context, r checkRequest, w world) (err error) {
	t, err := findCheckTarget(ctx, r.target)
	if err != nil {
		return err
	}
	if t.lock != nil {
		defer func() { err = errors.Join(err, t.lock.Close()) }()
	}
	if r.repair && t.live {
		err := &inUseError{state: t.state, pid: t.pid}
		return &failure{code: exitFailed, op: "check --repair", path: t.state, err: err,
			hint: "unmount the volume first; without --repair it can be checked as it is"}
	}
	run := checkRun{r: r, w: w, t: t}
	rep, err := run.once(ctx)
	if err != nil {
		return err
	}
	if r.repair {
		if rep, err = run.repair(ctx); err != nil {
			return err
		}
	}
	if r.asJSON {
		err = printJSON(w.out, rep)
	} else {
		_, err = fmt.Fprintln(w.out, verdict(rep))
	}
	if err == nil && !rep.Sound {
		err = &failure{code: exitPart, op: "check", path: r.target}
	}
	return err
}

func verdict(rep *checkReport) string {
	if rep.Sound {
		return "sound"
	}
	return count(int64(rep.Problems), "problem")
}

// findCheckTarget finds out what the argument stands for.
func findCheckTarget(ctx context.Context, target string) (checkTarget, error) {
	var t checkTarget
	refuse := func(err error, hint string) (checkTarget, error) {
		return t, &failure{code: exitFailed, op: "check", path: target, err: err, hint: hint}
	}
	f, err := find(target)
	if err != nil {
		return t, err
	}
	switch {
	case len(f.daemons) > 0:
		t.state = f.daemons[0].State
		if e, err := f.one(ctx); err == nil {
			t.state = e.State
		}
	case f.mount != nil && f.mount.Ours():
		return refuse(f.nobody(), "name its state directory")
	case isVolumeState(f.path):
		t.state = f.path
	case filepath.Base(f.path) == coldName && isVolumeState(filepath.Dir(f.path)):
		t.state = filepath.Dir(f.path)
	default:
		if _, err := os.Stat(f.path); err != nil {
			return refuse(plainError(err), "name a state directory, a bare repository or a mountpoint")
		}
		t.repo = f.path
		if st, err := os.Stat(filepath.Join(f.path, ".git")); err == nil && st.IsDir() {
			t.repo = filepath.Join(f.path, ".git")
		}
		return t, nil
	}
	t.repo = filepath.Join(t.state, coldName)
	t.lock, err = lockState(t.state)
	var inUse *inUseError
	switch {
	case errors.As(err, &inUse):
		t.live, t.pid = true, inUse.pid
	case err != nil:
		return refuse(errors.Unwrap(err), "run as the volume's owner")
	}
	return t, nil
}

// isVolumeState recognises a state directory even if parts of it are missing.
func isVolumeState(path string) bool {
	for _, name := range []string{volumeName, coldName} {
		if _, err := os.Stat(filepath.Join(path, name)); err == nil {
			return true
		}
	}
	return false
}

// checkRun is one check of a target.
type checkRun struct {
	r   checkRequest
	w   world
	t   checkTarget
	rep *checkReport
	// Results of the last run.
	cold *fsck.Checker
	warm *inspect.Report
	info inspect.StateInfo
}

// once checks everything. An error means that the check could not be made.
func (c *checkRun) once(ctx context.Context) (_ *checkReport, err error) {
	c.rep = &checkReport{Target: c.r.target, State: c.t.state, Repository: c.t.repo, Deep: c.r.deep,
		Findings: []cold.Finding{}}
	c.warm, c.cold = nil, nil
	defer func() {
		if c.cold != nil {
			err = errors.Join(err, c.cold.Close())
		}
	}()
	if c.t.live {
		c.rep.PID = c.t.pid
		c.found(cold.Finding{Severity: cold.Note, What: fmt.Sprintf("mounted, with pid %d: checked beside its daemon",
			c.t.pid), Where: c.t.state})
	}
	if c.t.state != "" {
		if err := c.state(); err != nil {
			return nil, err
		}
	}
	if err := c.repository(ctx); err != nil {
		return nil, err
	}
	if c.t.state != "" {
		if err := c.files(ctx); err != nil {
			return nil, err
		}
	}
	c.rep.Sound = c.rep.Problems == 0
	return c.rep, nil
}

// found records a finding and, unless the output is JSON, prints it.
func (c *checkRun) found(f cold.Finding) {
	if f.Severity == cold.Damaged {
		c.rep.Problems++
	}
	f.What, f.Where = redact(f.What), redact(f.Where)
	if !c.r.asJSON {
		printFinding(c.w.out, f)
	}
	if !utf8.ValidString(f.Path) {
		f.Path, f.Path64 = "", []byte(f.Path)
	}
	c.rep.Findings = append(c.rep.Findings, f)
}

// printFinding prints a finding as one line.
func printFinding(out io.Writer, f cold.Finding) {
	var parts []string
	if f.Path != "" {
		parts = append(parts, quotePath(f.Path))
	}
	if f.Where != "" && f.Where != "warm/"+f.Path {
		parts = append(parts, quotePath(f.Where))
	}
	line := fmt.Sprintf("%-8s", f.Severity)
	if len(parts) > 0 {
		line += strings.Join(parts, ", ") + ": "
	}
	line += oneLine(strings.ReplaceAll(f.What, "\n", "; "))
	if f.Object != "" && !strings.Contains(f.What, f.Object) {
		line += ", object " + f.Object
	}
	if f.Commit != "" && !strings.Contains(f.What, f.Commit) {
		line += ", commit " + f.Commit
	}
	if f.Do != "" {
		line += "; " + f.Do
	}
	fmt.Fprintln(out, line)
}

// state checks volume.json and the other files of the state directory.
func (c *checkRun) state() error {
	var err error
	c.info, err = inspect.ReadState(c.t.state)
	switch {
	case errors.Is(err, warm.ErrNewerState):
		return &failure{code: exitFailed, op: "check", path: c.t.state, err: err}
	case errors.Is(err, fs.ErrNotExist):
		c.found(cold.Finding{Severity: cold.Damaged, What: "is missing: nobody knows which commit warm is of",
			Where: volumeName,
			Do:    "keep a copy of warm before the next mount, which believes its records"})
	case err != nil:
		c.found(cold.Finding{Severity: cold.Damaged, What: err.Error(), Where: volumeName,
			Do: "keep a copy of warm, then move the file away: the next mount makes a new one"})
	}
	c.rep.Volume, c.rep.Branch = c.info.Volume, c.info.Branch
	if c.info.Restoring {
		c.found(cold.Finding{Severity: cold.Note, What: "a restore did not finish; the next mount does it again",
			Where: volumeName})
	}
	if !c.t.live && err == nil && !c.info.Trusted {
		c.found(cold.Finding{Severity: cold.Note, What: "the last stop was not clean and the machine has started " +
			"anew: the next mount compares every file with its commit", Where: volumeName})
	}
	if c.t.live {
		return nil
	}
	temps, err := inspect.StaleTemps(c.t.state)
	if err != nil {
		return err
	}
	for _, p := range temps {
		rel, _ := filepath.Rel(c.t.state, p)
		c.found(cold.Finding{Severity: cold.Note, What: "a temporary file of a process that is gone", Where: rel,
			Do: "remove it"})
	}
	return nil
}

// repository checks cold.
func (c *checkRun) repository(ctx context.Context) error {
	shown := newProgress(c.w, "check", "object")
	defer shown.done()
	progress := func(objects, done, total int64) {
		shown.expect(0, total)
		shown.set(objects, done)
	}
	var err error
	c.cold, err = fsck.Open(c.t.repo, fsck.Options{
		Volume: c.t.state != "", Owned: c.t.lock != nil, Branch: c.info.Branch, Head: c.info.Head,
		Origin: c.info.Origin, Source: c.info.Source,
		Deep: c.r.deep, Progress: progress, Found: c.found, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
	})
	if c.t.state != "" && errors.Is(err, fs.ErrNotExist) {
		if c.info.Head.IsZero() {
			c.found(cold.Finding{Severity: cold.Note, What: "nothing was ever committed", Where: coldName})
		} else {
			return c.noRepository()
		}
		return nil
	}
	if err != nil {
		hint := "name a state directory, a bare repository or a mountpoint"
		if c.t.state != "" {
			hint = "keep warm, and put the repository back from a clone"
		}
		return &failure{code: exitFailed, op: "check", path: c.t.repo, err: err, hint: hint}
	}
	err = c.cold.Check(ctx)
	if errors.Is(err, format.ErrNewerFormat) {
		return &failure{code: exitFailed, op: "check", path: c.t.repo, err: err, hint: "use a newer emberfs"}
	}
	if err != nil {
		return err
	}
	if id := c.cold.TipID(); !id.IsZero() {
		c.rep.Commit = id.String()
	}
	if id := c.cold.Pushed(); !id.IsZero() {
		c.rep.Pushed = id.String()
	}
	if c.rep.Branch == "" {
		c.rep.Branch = c.cold.Branch()
	}
	if c.rep.Volume == "" {
		c.rep.Volume = c.cold.TipVolume()
	}
	return nil
}
