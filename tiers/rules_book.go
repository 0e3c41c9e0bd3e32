package tiers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"emberfs/tiers/cold"
	"emberfs/tiers/rules"
	"emberfs/tiers/warm"
)

const (
	rulesName = "rules.yaml" // in the state directory: the volume's own text
)

// ruling is the component of rules: what they say, and directories that have to follow a change of them.
type ruling struct {
	book     ruleBook
	settling settling
}

// ruleBook holds the rules in effect and where they came from. The volume's own text lies in the state directory and,
// as .emberfs/rules.yaml, in each commit.
type ruleBook struct {
	set     atomic.Pointer[rules.Set] // in effect; nil: none
	changes atomic.Uint64             // of set, from 1
	// What is ignored may have changed elsewhere than by rules: the next commit looks at everything.
	rewalk atomic.Bool

	mu   mutex[lockRules] // over changes
	text []byte           // the volume's own
	from string           // where those in effect are from
	// Rules of the text that are not in effect, for they drop data and nobody here agreed to that.
	withheld int
	pending  bool // the last commit may have another text
}

// Where rules come from, as status shows it.
const (
	rulesNone   = "none"
	rulesConfig = "config"
	rulesHere   = "written here"
)

// RulesStatus says which rules are in effect.
type RulesStatus struct {
	From string `json:"from"` // none, config, "written here", or the commit that brought them
	// Withheld are rules of the repository that keep data out of commits (ignore, memory), which nobody on this machine
	// agreed to.
	Withheld int `json:"withheld"`
}

// Rules are the rules in effect.
func (v *Volume) Rules() *rules.Set { return v.book.set.Load() }

// RulesText is the volume's own text of rules, which need not be in effect (see RulesStatus).
func (v *Volume) RulesText() []byte {
	v.book.mu.Lock()
	defer v.book.mu.Unlock()
	return v.book.text
}

// rulesSum tells sets of rules apart by what they decide; "" where there are none.
func (v *Volume) rulesSum() string {
	text := v.Rules().Text()
	if len(text) == 0 {
		return ""
	}
	return sumOf(text)
}

// storeRules writes the volume's own text. consent is the sum of the text that this machine agreed to, "" leaves it. It
// is noted first, beside that of the text before: whichever of the two a kill leaves, it was written here.
func (v *Volume) storeRules(text []byte, consent string) error {
	if consent != "" && !v.agreed(consent) {
		agreed := consent
		if before := sumOf(v.book.text); v.agreed(before) {
			agreed += " " + before
		}
		if err := v.state.Update(func(s *warm.StateFile) { s.Rules = agreed }); err != nil {
			return err
		}
	}
	path := filepath.Join(v.cfg.State, rulesName)
	if len(text) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	} else if err := warm.WriteFileDurable(path, text, 0o600); err != nil {
		return err
	}
	return nil
}

// agreed says whether the text with this sum was written on this machine.
func (v *Volume) agreed(sum string) bool { return slices.Contains(strings.Fields(v.state.Rules), sum) }

func sumOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// rulesWritten says whether the text was written here after the commit that warm is of. book.mu is held.
func (v *Volume) rulesWritten(ctx context.Context) bool {
	id, err := cold.ParseID(v.state.Head)
	if err != nil {
		return len(v.book.text) > 0 // no commit yet
	}
	base, err := v.cold.Snapshot(ctx, id)
	if err == nil {
		var text []byte
		if text, err = base.Rules(ctx); err == nil {
			return string(text) != string(v.book.text)
		}
	}
	return v.agreed(sumOf(v.book.text)) // that commit cannot say
}

// rulesChanged says whether the volume's own text differs from what a commit has.
func (v *Volume) rulesChanged(ctx context.Context, base cold.Snapshot) bool {
	b := &v.book
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.pending {
		return false
	}
	if base == nil {
		return len(b.text) > 0
	}
	text, err := base.Rules(ctx)
	if err != nil {
		return len(b.text) > 0 // what cannot be read here may be mended elsewhere
	}
	if string(text) == string(b.text) {
		b.pending = false
	}
	return b.pending
}

// rulesCommitted notes that a commit has this text.
func (v *Volume) rulesCommitted(text []byte) {
	v.book.mu.Lock()
	if string(v.book.text) == string(text) {
		v.book.pending = false
	}
	v.book.mu.Unlock()
}
