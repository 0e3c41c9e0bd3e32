package odb

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/config"
	"golang.org/x/sys/unix"

	"emberfs/tiers/warm"
)

const maxConfig = 4 << 20 // no real config file is bigger

// setting is one line of git's configuration.
type setting struct{ section, key, value string }

// ourSettings returns what a volume's configuration must contain (FORMAT.md section 5), so that git does not repack or
// prune on its own.
func ourSettings() []setting {
	return []setting{
		{"core", "bare", "true"},
		{"gc", "auto", "0"},
		{"maintenance", "auto", "false"},
		{"receive", "autogc", "false"},
		{"repack", "writeBitmaps", "false"},
	}
}

// readConfig parses the repository's own configuration file. Includes are not followed.
func readConfig(dir string) (*config.Config, []byte, error) {
	path := filepath.Join(dir, "config")
	data, err := readSmall(path, maxConfig)
	if err != nil {
		return nil, nil, fmt.Errorf("read configuration: %w", err)
	}
	c := config.New()
	if err := config.NewDecoder(bytes.NewReader(data)).Decode(c); err != nil {
		return nil, nil, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return c, data, nil
}

// ObjectFormat returns which hash the repository at dir uses for ids: sha1 or sha256.
func ObjectFormat(dir string) (string, error) {
	c, _, err := readConfig(dir)
	if err != nil {
		return "", err
	}
	if f := c.Section("extensions").Option("objectformat"); f != "" {
		return strings.ToLower(f), nil
	}
	return "sha1", nil
}

// Unusual returns the name of an extension of the repository at dir that keeps others from using its files directly,
// refstorage or partialclone, or "" if it has neither.
func Unusual(dir string) (string, error) {
	c, _, err := readConfig(dir)
	if err != nil {
		return "", err
	}
	ext := c.Section("extensions")
	if s := ext.Option("refstorage"); s != "" && !strings.EqualFold(s, "files") {
		return "refstorage", nil
	}
	if ext.Option("partialclone") != "" {
		return "partialclone", nil
	}
	return "", nil
}

// HooksPath returns core.hooksPath of the repository at dir, or "" if it is not set. Includes are not followed; if
// there is one, that is an error, since it might set the path.
func HooksPath(dir string) (string, error) {
	c, _, err := readConfig(dir)
	if err != nil {
		return "", err
	}
	for _, s := range c.Sections {
		if name := strings.ToLower(s.Name); name == "include" || name == "includeif" {
			return "", errors.New("its configuration includes another file")
		}
	}
	return c.Section("core").Option("hookspath"), nil
}

// checkSupported refuses the kinds of repository that this package would misread.
func checkSupported(dir string, c *config.Config) error {
	refuse := func(format string, a ...any) error {
		return fmt.Errorf("open %s: %w: %s", dir, ErrUnsupported, fmt.Sprintf(format, a...))
	}
	v := c.Section("core").Option("repositoryformatversion")
	if v == "" {
		v = "0"
	}
	if n, err := strconv.Atoi(v); err != nil || n < 0 || n > 1 {
		return refuse("core.repositoryformatversion = %q, versions 0 and 1 are known", v)
	}
	ext := c.Section("extensions")
	for _, s := range ext.Subsections {
		return refuse("extensions.%s", s.Name)
	}
	for _, o := range ext.Options {
		switch key := strings.ToLower(o.Key); key {
		case "partialclone", "noop":
		case "objectformat":
			if !strings.EqualFold(o.Value, "sha1") {
				return refuse("object format %s, only sha1 is known", o.Value)
			}
		case "refstorage":
			if !strings.EqualFold(o.Value, "files") {
				return refuse("reference storage %s, only plain files are known", o.Value)
			}
		default:
			return refuse("extensions.%s = %s", o.Key, o.Value)
		}
	}
	return nil
}

// applySettings appends to the configuration what differs from ourSettings. git uses the last value, and the rest of
// the file stays as it is.
func applySettings(dir string) error {
	c, data, err := readConfig(dir)
	if errors.Is(err, fs.ErrNotExist) {
		c, data, err = config.New(), nil, nil
	}
	if err != nil {
		return err
	}
	if err := checkSupported(dir, c); err != nil {
		return err
	}
	var add bytes.Buffer
	if c.Section("core").Option("repositoryformatversion") == "" {
		add.WriteString("[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n")
	}
	last := ""
	for _, s := range ourSettings() {
		if c.Section(s.section).Option(s.key) == s.value {
			continue
		}
		if s.section != last {
			fmt.Fprintf(&add, "[%s]\n", s.section)
		}
		last = s.section
		fmt.Fprintf(&add, "\t%s = %s\n", s.key, s.value)
	}
	if add.Len() == 0 {
		return nil
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		data = append(data, '\n')
	}
	return warm.WriteFileDurable(filepath.Join(dir, "config"), append(data, add.Bytes()...), 0o644)
}

// checkLayout returns an error unless dir is a bare repository that can be read in place.
func checkLayout(dir string) error {
	for _, name := range []string{"HEAD", "objects", "refs"} {
		st, err := os.Stat(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) || err == nil && st.IsDir() == (name == "HEAD") {
			if _, err := os.Stat(dir); err != nil {
				return fmt.Errorf("open repository: %w", err)
			}
			return fmt.Errorf("open %s: %w: it has no proper %s", dir, ErrNotRepository, name)
		}
		if err != nil {
			return fmt.Errorf("open repository: %w", err)
		}
	}
	return checkAlternates(dir)
}

func checkAlternates(dir string) error {
	path := filepath.Join(dir, "objects", "info", "alternates")
	data, err := readSmall(path, maxConfig)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open repository: %w", err)
	}
	if len(bytes.TrimSpace(data)) > 0 {
		return fmt.Errorf("open %s: %w: it borrows objects through objects/info/alternates (git repack -a -d copies "+
			"them; then remove that file)", dir, ErrUnsupported)
	}
	return nil
}

// readSmall reads a file, and fails if it is larger than limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	f, st, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st.Size() > limit {
		return nil, fmt.Errorf("%s: %w: %d bytes, at most %d", path, ErrTooLarge, st.Size(), limit)
	}
	data := make([]byte, st.Size())
	n, err := f.ReadAt(data, 0)
	if n == len(data) {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}

// openRegular opens a regular file for reading. It refuses other kinds without blocking: in somebody else's repository
// the name might be a FIFO.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = corruptf("%s is no regular file", path)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, st, nil
}
