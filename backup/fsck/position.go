package fsck

import (
	"context"
	"fmt"

	"emberfs/tiers/cold"
)

// position compares the branch with the remote and with the commit that warm belongs to.
func (c *Checker) position(ctx context.Context) error {
	switch {
	case c.tipID.IsZero() && len(c.broken) == 0:
		c.found(cold.Finding{Severity: cold.Note, What: "the branch has no commit yet", Where: c.MainRef()})
		return nil
	case c.tipID.IsZero() || !c.DB().Has(c.tipID):
		return nil
	}
	if head := c.o.Head; !head.IsZero() && head != c.tipID {
		follows, err := c.Follows(ctx, c.tipID, head)
		switch {
		case !c.DB().Has(head):
			c.found(cold.Finding{Severity: cold.Damaged,
				What: "warm is of this commit, which the repository does not have", Commit: head.String(),
				Where: "volume.json",
				Do:    doRepair + " lets everything count as changed since the tip"})
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil || !follows:
			c.found(cold.Finding{Severity: cold.Risk,
				What:   fmt.Sprintf("the branch is at %s, which does not follow the commit that warm is of", c.tipID),
				Commit: head.String(), Where: c.MainRef(),
				Do: "merge, or move the branch back in cold.git, then sync"})
		default:
			c.found(cold.Finding{Severity: cold.Note, What: c.behind(ctx, head) + "; the next mount follows",
				Commit: head.String()})
		}
	}
	if c.o.Source == "" || c.tracked == c.tipID {
		return nil
	}
	f := cold.Finding{Severity: cold.Risk, What: "the last commit is not on the remote", Commit: c.tipID.String(),
		Where: c.o.Source, Do: "emberfs sync pushes it"}
	if !c.tracked.IsZero() {
		if n, ahead, err := c.NewCommits(ctx, c.tipID, c.tracked); err == nil && ahead {
			f.What = fmt.Sprintf("the last %s not on the remote, which has %s",
				plural(len(n), "commit is", "commits are"), c.tracked)
		}
	}
	c.found(f)
	return ctx.Err()
}

// behind describes how far the newest commit is ahead of warm's.
func (c *Checker) behind(ctx context.Context, head cold.ID) string {
	if n, ahead, err := c.NewCommits(ctx, c.tipID, head); err == nil && ahead {
		return fmt.Sprintf("warm is %s behind the branch", plural(len(n), "commit", "commits"))
	}
	return "warm is behind the branch, which has absorbed its live commit"
}

func plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}
