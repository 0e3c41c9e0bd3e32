package cold

import (
	"context"
	"time"
)

// Listing is one directory as a commit describes it.
type Listing struct {
	Entries []Entry // sorted by Name, bytewise
	// Reconciled says that a stock client changed this directory (its metadata describes another tree), so what is
	// listed was merged by FORMAT.md section 3 and the directory must be committed anew before it counts as clean.
	Reconciled bool
	// Problems are entries left out or mended because the repository lies about them; for the log.
	Problems []error
}

// CommitInfo is what a commit says of itself.
type CommitInfo struct {
	ID      ID
	Parent  ID
	Time    time.Time // the committer's, by which git orders commits: never before the parent's
	Made    time.Time // when it was made by its machine's clock; Time for a commit of a stock client
	Reason  string    // trailer Emberfs-Reason: sync, interval, unmount...; "" for a stock client's commit
	Machine string    // trailer Emberfs-Machine
	Subject string
	// Live says that the commit is on the live branch, not on main. Cold.Newest, Tx.Base and listings of commits tell.
	Live bool
	// Absorbed are live commits that this one of main took the place of, trailer Emberfs-Absorbs: the last one first,
	// then those at which another machine took over. What they have, and what went before them, went into this one.
	Absorbed []ID
}

// Snapshot reads one commit. Safe for concurrent use.
type Snapshot interface {
	Info() CommitInfo
	// Root is the root directory's entry (Name "").
	Root() Entry
	// ReadDir lists a directory of this commit. Errors of single entries are Problems, not errors.
	ReadDir(ctx context.Context, dir DirID) (Listing, error)
	// ReadNames is ReadDir without a look at each file's object: a size is what the metadata says, until Sizes looked
	// at them.
	ReadNames(ctx context.Context, dir DirID) (Listing, error)
	// Sizes is ReadDir for who has what ReadNames gave.
	Sizes(ctx context.Context, dir DirID, names Listing) (Listing, error)
	// LinkDirs gives for each hard-link group that spans directories the directories (slash paths, "" the root) it is
	// in.
	LinkDirs(ctx context.Context) (map[string][]string, error)
	// Valid says whether a directory of this commit and all below it are as EmberFS wrote them: its metadata describes
	// its tree. ErrMissing, ErrCorrupt.
	Valid(ctx context.Context, dir DirID) (bool, error)
	// Opened lists files in the order in which the session that made the commit opened them first: slash paths, the
	// most urgent first. They may be gone; a commit of a stock client, or one before there was such a list, has none.
	Opened(ctx context.Context) ([]string, error)
	// Rules is the text of the volume's own rules, nil where it has none. ErrCorrupt: it is too long, or no file.
	Rules(ctx context.Context) ([]byte, error)
	// Files counts the entries of all directories that git has, about, and those among them that are no directories;
	// over most names it may stop and gives a number over most. It costs a look at each distinct directory.
	Files(ctx context.Context, most int64) (files, names int64, err error)
}

// RootDir names the root directory of a snapshot.
func RootDir(s Snapshot) DirID {
	root := s.Root()
	return root.Dir()
}
