package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"emberfs/tiers/warm"
)

// sshKey is the private key that ssh is given. Safe for concurrent use.
type sshKey struct {
	place Reference // zero: ssh's own keys
	usual bool      // nobody named it: it need not be there
	dir   string    // where a copy may lie; "": a directory for temporary files
	name  string    // of the copy

	mu   sync.Mutex
	kept string // our file of a key that is in no file that ssh can read; "": there is none
	made string // the directory that was made for it
	last []byte // what is in it
}

// newSSHKey reads a path as a reference to a file. A copy has the name; one that a killed process left is removed.
func newSSHKey(o *Options, name string) (*sshKey, error) {
	k := &sshKey{dir: o.Dir, name: name}
	if o.Dir != "" {
		if err := os.Remove(filepath.Join(o.Dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	var err error
	switch {
	case o.SSHKey == "":
		k.place, k.usual = Reference{"credential", "emberfs-ssh-key"}, true
	case filepath.IsAbs(o.SSHKey):
		k.place, err = ParseReference("file:" + o.SSHKey)
	default:
		k.place, err = ParseReference(o.SSHKey)
	}
	if err != nil {
		return nil, fmt.Errorf("ssh key: %w, or the absolute path of a file", err)
	}
	return k, nil
}

// file is a file that ssh can read, with the key that counts now; "": ssh looks for keys itself. A key that is in a
// variable is copied to a file that only we can read, and so is one without a final newline, which ssh cannot read.
func (k *sshKey) file() (string, error) {
	data, err := k.place.Read()
	if k.usual && errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	path, err := k.place.path()
	if err != nil || path != "" && bytes.HasSuffix(data, []byte("\n")) {
		return path, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !bytes.HasSuffix(data, []byte("\n")) {
		data = append(data, '\n')
	}
	if k.kept != "" && bytes.Equal(data, k.last) {
		return k.kept, nil
	}
	dir := k.dir
	if dir == "" {
		if k.made == "" {
			if k.made, err = os.MkdirTemp("", "emberfs-ssh"); err != nil {
				return "", err
			}
		}
		dir = k.made
	}
	to := filepath.Join(dir, k.name)
	if err := warm.WriteFileDurable(to, data, 0o600); err != nil {
		return "", err
	}
	k.kept, k.last = to, data
	return to, nil
}

// close removes the copy.
func (k *sshKey) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var err error
	if k.kept != "" {
		err = os.Remove(k.kept)
	}
	if k.made != "" {
		err = errors.Join(err, os.Remove(k.made))
	}
	k.kept, k.made, k.last = "", "", nil
	return err
}

// knownHosts is the file of the keys of hosts; "": ssh's own.
func knownHosts(o *Options) (string, error) {
	path := o.KnownHosts
	if path == "" {
		var err error
		path, err = Reference{"credential", "emberfs-known-hosts"}.path()
		if err == nil {
			_, err = os.Stat(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return path, err
	}
	// ssh takes a file that is missing for one that knows nobody.
	if _, err := os.Stat(path); err != nil && !(o.AcceptNew && errors.Is(err, fs.ErrNotExist)) {
		return "", err
	}
	return path, nil
}

// sshWord quotes a path for ssh's configuration, which replaces % (ssh_config(5), TOKENS).
func sshWord(path string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%").Replace(path) + `"`
}
