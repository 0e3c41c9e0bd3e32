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
	rulesName = "rules.yaml" // the file in the state directory with the volume's own text
)

// ruling is the component with the rules, and the inodes that have to follow a change of them.
type ruling struct {
	book     ruleBook
	settling settling
}

// ruleBook holds the rules in effect and where they came from. The volume's own text is in the state directory and, as
// .emberfs/rules.yaml, in each commit.
type ruleBook struct {
	set     atomic.Pointer[rules.Set] // in effect; nil: none
	changes atomic.Uint64             // how often set was changed, from 1
	// rewalk: the next commit looks at everything, because what is ignored may have changed by other means than rules.
	rewalk atomic.Bool

	mu   mutex[lockRules] // held while rules are changed; guards what follows
	text []byte           // the volume's own rules
	from string           // where the rules in effect are from
	// withheld is how many rules of text are not in effect, because they keep data out of commits and nobody on this
	// machine agreed to that.
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
	// Withheld is how many rules of the repository are not in effect, because they keep data out of commits (ignore,
	// memory) and nobody on this machine agreed to that.
	Withheld int `json:"withheld"`
}

// Rules returns the rules in effect, nil for none.
func (v *Volume) Rules() *rules.Set { return v.book.set.Load() }

// RulesText returns the volume's own text of rules, which need not be in effect (see RulesStatus).
func (v *Volume) RulesText() []byte {
	v.book.mu.Lock()
	defer v.book.mu.Unlock()
	return v.book.text
}

// rulesSum returns a checksum of the rules in effect, "" where there are none.
func (v *Volume) rulesSum() string {
	text := v.Rules().Text()
	if len(text) == 0 {
		return ""
	}
	return sumOf(text)
}

// storeRules writes the volume's own text. consent is the checksum of a text that this machine agreed to; with "" what
// it agreed to stays. The sum is noted before the text is written, and the old text's sum is kept: whichever text a
// kill leaves, it is known that it was written here. book.mu is held.
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

// agreed says whether this machine agreed to the text with this checksum, because it was written here.
func (v *Volume) agreed(sum string) bool { return slices.Contains(strings.Fields(v.state.Rules), sum) }

func sumOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// rulesWritten says whether the volume's own text was written here after the commit that warm is in step with. book.mu
// is held.
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
	return v.agreed(sumOf(v.book.text)) // that commit cannot be read
}

// rulesChanged says whether the volume's own text differs from that of the commit base, which may be nil.
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
		return len(b.text) > 0 // a text that cannot be read stays as it is while there is none here
	}
	if string(text) == string(b.text) {
		b.pending = false
	}
	return b.pending
}

// rulesCommitted notes that the last commit has this text.
func (v *Volume) rulesCommitted(text []byte) {
	v.book.mu.Lock()
	if string(v.book.text) == string(text) {
		v.book.pending = false
	}
	v.book.mu.Unlock()
}
