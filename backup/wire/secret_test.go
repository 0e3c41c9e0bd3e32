package wire

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReferences(t *testing.T) {
	for _, text := range []string{"env:TOKEN", "file:/run/a b", "credential:emberfs-token"} {
		if r, err := ParseReference(text); err != nil || r.String() != text || r.IsZero() {
			t.Errorf("%q: %v, %v", text, r, err)
		}
	}
	for _, text := range []string{"", "ghp_s3cret", "env:", "env:s3cret=1", "file:s3cret", "file:",
		"credential:../s3cret", "credential:..", "credential:a/s3cret", "https://u:s3cret@h/", "env:s3cret\n",
		"ENV:s3cret"} {
		r, err := ParseReference(text)
		if !errors.Is(err, ErrReference) || !r.IsZero() || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v, %v", text, r, err)
		}
	}
	if _, err := (Reference{}).Read(); err == nil {
		t.Error("a reference to nothing can be read")
	}
}

// secretFile writes a file with a secret.
func secretFile(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	check(t, os.WriteFile(path, []byte(content), mode))
	check(t, os.Chmod(path, mode))
	return path
}

// TestSecretFiles holds what a file with a secret may be; a new content counts at the next use.
func TestSecretFiles(t *testing.T) {
	path := secretFile(t, "token", "first\n", 0o600)
	r, err := ParseReference("file:" + path)
	check(t, err)
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false, 0o620: false,
		0o644: false} {
		check(t, os.Chmod(path, mode))
		text, err := r.line()
		if ok && (err != nil || text != "first") {
			t.Errorf("mode %o: %q, %v", mode, text, err)
		}
		if !ok && (!errors.Is(err, ErrOpenSecret) || !strings.Contains(err.Error(), path) ||
			!strings.Contains(err.Error(), "chmod 600") || strings.Contains(err.Error(), "first") || text != "") {
			t.Errorf("mode %o: %q, %v", mode, text, err)
		}
	}
	check(t, os.Chmod(path, 0o600))
	check(t, os.WriteFile(path, []byte("second\r\n"), 0o600))
	if text, err := r.line(); err != nil || text != "second" {
		t.Errorf("after it was rotated: %q, %v", text, err)
	}
	for _, bad := range []string{"", "\n", "two\nlines\n", "nul\x00"} {
		check(t, os.WriteFile(path, []byte(bad), 0o600))
		if text, err := r.line(); !errors.Is(err, errSecret) {
			t.Errorf("%q: %q, %v", bad, text, err)
		}
	}
	check(t, os.WriteFile(path, make([]byte, maxSecret+1), 0o600))
	if _, err := r.Read(); err == nil {
		t.Error("a huge file is read")
	}
	check(t, os.Chown(path, 12345, 12345))
	if _, err := r.Read(); !errors.Is(err, ErrForeignSecret) || !strings.Contains(err.Error(), path) {
		t.Errorf("a file of somebody else: %v", err)
	}
	check(t, os.Remove(path))
	if _, err := r.Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	check(t, unix.Mkfifo(path, 0o600))
	if _, err := r.Read(); err == nil {
		t.Error("a FIFO is read")
	}
}

// TestCredentialsDirectory: systemd shows the access of a user as rights of the group.
func TestCredentialsDirectory(t *testing.T) {
	path := secretFile(t, "emberfs-token", "secret\n", 0o440)
	r, err := ParseReference("credential:emberfs-token")
	check(t, err)
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := r.Read(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "LoadCredential") {
		t.Errorf("without a directory: %v", err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(path))
	if text, err := r.line(); err != nil || text != "secret" {
		t.Errorf("%q, %v", text, err)
	}
}
