package rules

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// EffectiveFile is the file of what is in effect, for commands without a daemon.
const EffectiveFile = "rules.effective.yaml"

// ReadEffective reads which rules the volume of a state directory last had in effect.
func ReadEffective(state string) (*Set, error) {
	text, err := os.ReadFile(filepath.Join(state, EffectiveFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the rules in effect: %w", err)
	}
	set, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(state, EffectiveFile), err)
	}
	return set, nil
}
