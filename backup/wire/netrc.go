package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"

	"github.com/git-lfs/go-netrc/netrc"
)

// askNetrc looks a host up in ~/.netrc, as libcurl does for git; nil: it does not say. Its default entry is for the
// host that the user has named alone, and not for one that a redirect leads to.
func askNetrc(at *url.URL, user string, named bool) (*login, error) {
	path := filepath.Join(home(), ".netrc")
	data, err := readSecretFile(path, true)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	file, err := netrc.Parse(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err) // it names the line and what is wrong, and no content
	}
	m := file.FindMachine(at.Hostname(), user)
	if m == nil || m.Password == "" || m.IsDefault() && !named {
		return nil, nil
	}
	name := m.Login
	if name == "" {
		name = user
	}
	return &login{from: path, origin: originOf(at), header: basic(name, m.Password),
		expired: func() bool { return false }}, nil
}
