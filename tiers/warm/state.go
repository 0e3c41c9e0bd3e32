package warm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/uuid"
)

// StateFormat is the layout of a state directory that this version writes, and the newest that it reads.
const StateFormat = 1

const (
	StateName = "volume.json"
	DirName   = "warm"
)

// StateFile is volume.json: what a start must know of the last one. It is written durably on every change.
type StateFile struct {
	Format  int    `json:"format"`
	Machine string `json:"machine"` // id of this state directory as a writer of commits
	Volume  string `json:"volume"`  // id of the volume
	Branch  string `json:"branch"`
	Source  string `json:"source"`
	Boot    string `json:"boot"`       // boot id of the last start
	Clean   bool   `json:"clean_stop"` // the last daemon stopped with everything in warm durable
	Pending bool   `json:"pending"`    // it stopped with changes that no commit has
	Trust   uint16 `json:"trust"`      // records with another number are hints only
	// The commit that warm was last in step with, main's or a live one; "" before the first.
	Head string `json:"head"`
	// The commit that warm was last restored from: lazy directories are of it.
	Origin string `json:"origin,omitempty"`
	// There may be stubs and lazy directories: without records nobody can tell.
	Tiered bool `json:"tiered,omitempty"`
	Marked bool `json:"marked,omitempty"` // warm's root carries the mark of this volume
	// Sha256 of texts of rules that were written on this machine: the last, and the one before.
	Rules  string `json:"rules_agreed,omitempty"`
	Walked string `json:"rules_walked,omitempty"` // the rules by which the last commit looked at everything
	// Boot id in which the kernel was let at files of warm: programs may still have some open.
	Direct string `json:"direct_boot,omitempty"`
	// The commit that warm is being brought to; nothing else may have changed it.
	Restore string `json:"restoring"`
}

// State is volume.json as it is in memory and on disk. Update may be called concurrently; StateFile is read without a
// lock by its owner.
type State struct {
	mu   sync.Mutex
	Path string
	StateFile
}

// LoadState reads volume.json, or makes a new one in memory.
func LoadState(dir string) (*State, error) {
	s := &State{Path: filepath.Join(dir, StateName)}
	data, err := os.ReadFile(s.Path)
	if errors.Is(err, fs.ErrNotExist) {
		s.StateFile = StateFile{Format: StateFormat, Machine: uuid.NewString(), Trust: 1}
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the volume's state: %w", err)
	}
	if err := json.Unmarshal(data, &s.StateFile); err != nil {
		return nil, fmt.Errorf("read the volume's state %s: %w", s.Path, err)
	}
	if s.Format > StateFormat {
		return nil, fmt.Errorf("%s has format %d, this version reads up to %d: %w", s.Path, s.Format, StateFormat,
			ErrNewerState)
	}
	if s.Format < 1 || s.Machine == "" {
		return nil, fmt.Errorf("%s is not a volume's state: format %d", s.Path, s.Format)
	}
	return s, nil
}

// Update changes the state and writes it durably; the change stays in memory even if that fails.
func (s *State) Update(change func(*StateFile)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.StateFile)
	data, err := json.MarshalIndent(&s.StateFile, "", "\t")
	if err != nil {
		return err
	}
	return WriteFileDurable(s.Path, append(data, '\n'), 0o600)
}

// Identity returns the id under which a state directory writes commits, and the id of its volume: both are made, and
// kept, at the first call. A repository that has commits already has a volume id of its own, which then wins.
func Identity(dir string) (machine, volume string, err error) {
	s, err := LoadState(dir)
	if err != nil {
		return "", "", err
	}
	if s.Volume == "" {
		if err := s.Update(func(f *StateFile) { f.Volume = uuid.NewString() }); err != nil {
			return "", "", err
		}
	}
	return s.Machine, s.Volume, nil
}

// BootID names the running boot of the kernel: records, and notes of who holds a lock, are about one boot.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// ErrNewerState says that the state directory was written by a later version.
var ErrNewerState = errors.New("use a newer emberfs")
