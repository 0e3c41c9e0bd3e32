package cold

import (
	"context"
	"time"
)

// Listing is one directory as a commit describes it.
type Listing struct {
	Entries []Entry // sorted by Name, bytewise
	// Reconciled says that a stock client changed this directory, so that its metadata describes another tree. The
	// listing was merged from both by FORMAT.md section 3, and the directory must be committed anew before it counts as
	// clean.
	Reconciled bool
	// Problems says which entries were left out or mended because the repository contradicts itself about them. It is
	// meant for the log.
	Problems []error
}

// CommitInfo is what a commit says about itself.
type CommitInfo struct {
	ID      ID
	Parent  ID
	Merged  []ID      // the further parents of a merge
	Tree    ID        // the commit's tree, with .emberfs in it
	Time    time.Time // the committer's date, by which git orders commits; never earlier than the parent's
	Made    time.Time // when it was made, by its machine's clock; equal to Time for a stock client's commit
	Reason  string    // trailer Emberfs-Reason: sync, interval, unmount...; "" for a stock client's commit
	Machine string    // trailer Emberfs-Machine
	Subject string
	// Live says that the commit is on the live branch, not on main. It is set by Cold.Newest, Tx.Base and listings of
	// commits only.
	Live bool
	// Absorbed are the live commits that this commit of main replaced (trailer Emberfs-Absorbs): first the last commit
	// of the live branch, then those at which another machine took over. Their content, and that of the live commits
	// before them, is contained in this one.
	Absorbed []ID
	// Clean says whether the session of the machine that made the commit ended with it, and had everything in it.
	Clean Clean
	// AtRisk is the number of files that this machine had and the commit has not, and AtRiskBytes that of their bytes,
	// as far as it knew.
	AtRisk, AtRiskBytes int64
	// Lacking are the paths of some of the files that the commit should have taken and could not, as text for people.
	Lacking []string
}

// Clean is what a commit says about the end of its session (trailer Emberfs-Clean).
type Clean uint8

// What a commit says about the end of its session.
const (
	CleanUnsaid Clean = iota // nothing: a stock client made it, or an EmberFS that did not say so yet
	CleanNo                  // the session was to go on, or ended with something that no commit has
	CleanYes                 // the session ended with this commit, which has everything
)

// Snapshot reads one commit. It is safe for concurrent use.
type Snapshot interface {
	Info() CommitInfo
	// Root returns the entry of the root directory; its Name is "".
	Root() Entry
	// ReadDir lists a directory of this commit. What is wrong with single entries is in Listing.Problems and does not
	// make it fail.
	ReadDir(ctx context.Context, dir DirID) (Listing, error)
	// ReadNames lists a directory like ReadDir, but does not look at each file's object: sizes are those in the
	// metadata. Sizes makes up for that.
	ReadNames(ctx context.Context, dir DirID) (Listing, error)
	// Sizes returns what ReadDir would return, given what ReadNames returned for the same directory.
	Sizes(ctx context.Context, dir DirID, names Listing) (Listing, error)
	// LinkDirs returns, for each hard-link group that has names in several directories, the slash paths of those
	// directories ("" is the root).
	LinkDirs(ctx context.Context) (map[string][]string, error)
	// Valid reports whether a directory of this commit and everything below it are as EmberFS wrote them, that is,
	// whether all metadata describes its tree. If it cannot tell, the error is ErrMissing or ErrCorrupt.
	Valid(ctx context.Context, dir DirID) (bool, error)
	// Opened returns the slash paths of files in the order in which the session that made the commit first opened them;
	// the first are the most urgent to have again. They may no longer exist. A stock client's commit, and one of an
	// EmberFS that did not write such a list yet, has none.
	Opened(ctx context.Context) ([]string, error)
	// Rules returns the text of the rules stored in the volume, or nil if it has none. The error is ErrCorrupt if the
	// text is too long or not a file.
	Rules(ctx context.Context) ([]byte, error)
	// Files counts what is stored in git, roughly: names is the number of directory entries, files the number of those
	// that are not directories. If there are more than most names it may stop early; the names that it returns are then
	// still more than most. It reads each distinct directory once.
	Files(ctx context.Context, most int64) (files, names int64, err error)
}

// RootDir returns the DirID of a snapshot's root directory.
func RootDir(s Snapshot) DirID {
	root := s.Root()
	return root.Dir()
}
