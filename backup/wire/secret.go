package wire

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxSecret is how many bytes a file with a secret may have.
const maxSecret = 64 << 10

// Reference says where a secret is, and is none itself: it may stand in settings, process lists and messages. The zero
// value names nothing. It is a value, so that it is safe for concurrent use.
type Reference struct {
	kind string // "env", "file", "credential"; "": it names nothing
	name string // of the variable, the file, or the systemd credential
}

var (
	// ErrReference says that a text does not say where a secret is. It does not repeat the text, which may be the
	// secret.
	ErrReference = errors.New("it must say where the secret is and not be the secret itself: env:NAME, " +
		"file:/ABSOLUTE/PATH or credential:NAME")
	// ErrOpenSecret says that others than its owner can read a file with a secret.
	ErrOpenSecret = errors.New("a file with a secret must be readable by its owner alone")
	// ErrForeignSecret says that a file with a secret belongs to neither us nor root.
	ErrForeignSecret = errors.New("a file with a secret must belong to this user or to root")
	// errSecret is for contents that no header and no line of a helper can have.
	errSecret = errors.New("the secret there is empty or has control characters in it")
)

// ParseReference reads env:NAME, file:/ABSOLUTE/PATH or credential:NAME (of $CREDENTIALS_DIRECTORY: systemd.exec(5),
// LoadCredential=). It looks at nothing yet. The error is ErrReference.
func ParseReference(text string) (Reference, error) {
	kind, name, _ := strings.Cut(text, ":")
	ok := name != "" && !strings.ContainsFunc(text, isControl)
	switch kind {
	case "env":
		ok = ok && !strings.Contains(name, "=")
	case "file":
		ok = ok && filepath.IsAbs(name)
	case "credential":
		ok = ok && !strings.Contains(name, "/") && name != "." && name != ".."
	default:
		ok = false
	}
	if !ok {
		return Reference{}, ErrReference
	}
	return Reference{kind, name}, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// String is the reference as ParseReference reads it.
func (r Reference) String() string {
	if r.kind == "" {
		return ""
	}
	return r.kind + ":" + r.name
}

// IsZero says that the reference names nothing.
func (r Reference) IsZero() bool { return r.kind == "" }

// Read returns the secret as it is now, which may be another one than before. Errors name the place and never the
// content: fs.ErrNotExist, ErrOpenSecret, ErrForeignSecret.
func (r Reference) Read() ([]byte, error) {
	if r.kind == "env" {
		if v := os.Getenv(r.name); v != "" {
			return []byte(v), nil
		}
		return nil, fmt.Errorf("%s: %w: the environment variable is not set", r, fs.ErrNotExist)
	}
	path, err := r.path()
	if err != nil {
		return nil, err
	}
	// systemd guards its directory, and shows the access that it grants to a user as rights of the group.
	return readSecretFile(path, r.kind == "file")
}

// path is the file that has the secret; "" for a variable.
func (r Reference) path() (string, error) {
	switch r.kind {
	case "file":
		return r.name, nil
	case "credential":
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return "", fmt.Errorf("%s: %w: CREDENTIALS_DIRECTORY is not set, which systemd does for a service with "+
				"LoadCredential=", r, fs.ErrNotExist)
		}
		return filepath.Join(dir, r.name), nil
	}
	return "", nil
}

// line is Read for a secret that is one line, such as a token; the end of the line is no part of it.
func (r Reference) line() (string, error) {
	data, err := r.Read()
	if err != nil {
		return "", err
	}
	text := strings.TrimRight(string(data), "\r\n")
	if text == "" || strings.ContainsFunc(text, isControl) {
		return "", fmt.Errorf("%s: %w", r, errSecret)
	}
	return text, nil
}

// readSecretFile reads a file that only its owner can read, where guarded, and that is ours or root's.
func readSecretFile(path string, guarded bool) (_ []byte, err error) {
	// Without O_NONBLOCK a FIFO would hold us.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := checkSecretFile(f, guarded); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(data) > maxSecret {
		err = fmt.Errorf("%s: it has more than %d bytes, which no secret has", path, maxSecret)
	}
	return data, err
}

// checkSecretFile looks at the file that was opened, which cannot become another one meanwhile.
func checkSecretFile(f *os.File, guarded bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%s: it is no regular file", f.Name())
	case guarded && st.Uid != 0 && st.Uid != uint32(os.Geteuid()):
		return fmt.Errorf("%s: %w, but it belongs to user %d", f.Name(), ErrForeignSecret, st.Uid)
	case guarded && st.Mode&0o077 != 0:
		return fmt.Errorf("%s: %w, but its mode is %04o: chmod 600 %s", f.Name(), ErrOpenSecret, st.Mode&0o7777,
			shellWord(f.Name()))
	}
	return nil
}

// firstSecret is the first of the places that has a line; the zero Reference if none has.
func firstSecret(places ...Reference) (Reference, string, error) {
	for _, r := range places {
		switch text, err := r.line(); {
		case err == nil:
			return r, text, nil
		case !errors.Is(err, fs.ErrNotExist):
			return r, "", err
		}
	}
	return Reference{}, "", nil
}
