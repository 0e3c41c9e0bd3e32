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
	"time"

	"github.com/google/uuid"
)

// StateFormat is the layout of state directories that this version writes, and the newest one that it reads.
const StateFormat = 1

const (
	StateName = "volume.json"
	DirName   = "warm"
)

// StateFile is the content of volume.json: what the next start has to know. It is written durably at every change.
type StateFile struct {
	Format  int    `json:"format"`
	Machine string `json:"machine"` // the id under which this state directory writes commits
	Volume  string `json:"volume"`  // id of the volume
	Branch  string `json:"branch"`
	Source  string `json:"source"`
	Boot    string `json:"boot"`       // boot id of the last start
	Clean   bool   `json:"clean_stop"` // the last daemon stopped with everything in warm durable
	Pending bool   `json:"pending"`    // the last daemon stopped with changes that no commit has
	// The machine stopped without a clean stop, and there was none since.
	Cut   bool   `json:"cut,omitempty"`
	Trust uint16 `json:"trust"` // the trust number; records with another one are hints only
	// The commit, of main or the live branch, that warm was last in step with; "" before the first commit.
	Head string `json:"head"`
	// The commit that warm was last restored from; lazy directories are listed from it.
	Origin string `json:"origin,omitempty"`
	// There may be stubs and lazy directories. Without this only the records could tell.
	Tiered bool `json:"tiered,omitempty"`
	Marked bool `json:"marked,omitempty"` // warm's root carries the mark of this volume
	// SHA-256 of texts of rules that were written on this machine: of the last one and of the one before.
	Rules  string `json:"rules_agreed,omitempty"`
	Walked string `json:"rules_walked,omitempty"` // SHA-256 of the rules by which a commit last looked at everything
	// The boot id of the boot in which the kernel had direct access to files of warm: programs may still have some
	// open.
	Direct string `json:"direct_boot,omitempty"`
	// When the remote last answered, to the minute or so; zero: never, or an earlier version wrote this.
	Contact time.Time `json:"last_contact,omitzero"`
	// The commit to which warm is being restored; "" while no restore is under way.
	Restore string `json:"restoring"`
}

// State is volume.json in memory and on disk. Update may be called concurrently. Only the owner may read StateFile,
// which it does without a lock.
type State struct {
	mu   sync.Mutex
	Path string
	StateFile
}

// LoadState reads volume.json. If there is none, it returns a new State, which is in memory only.
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

// Identity returns the id under which a state directory writes commits, and the id of its volume. Both are made at the
// first call and kept. If the repository has commits, its own volume id takes precedence.
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

// BootID returns the id of the running boot of the kernel.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// ErrNewerState says that the state directory was written by a newer version of EmberFS.
var ErrNewerState = errors.New("use a newer emberfs")
