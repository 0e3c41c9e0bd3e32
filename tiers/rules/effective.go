package rules

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// EffectiveFile is the name of the file, in the state directory, with the rules in effect. Commands that look at a
// volume without its daemon read it.
const EffectiveFile = "rules.effective.yaml"

// ReadEffective reads the rules that the volume of a state directory last had in effect. It returns nil if none are
// noted.
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
