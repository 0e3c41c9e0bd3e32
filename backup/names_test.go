package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/backup/format"
)

// generatedNames are names around everything that git, HFS+ and NTFS treat in a way of their own.
func generatedNames() []string {
	words := []string{
		".git", ".gitmodules", ".gitattributes", ".gitignore", ".mailmap", ".emberfs", "git~1", "gitmod~4", "gi7eba~9",
		"gitatt~2", "g~1", "~1",
		"gabcdef~1", "gabcde~12345", "x~1", ".gi", "git", ".gitx", "git~", "git~x", ".emberfs%entries", ".emberfs%%",
		"plain", "con", "gitmodules",
	}
	before := []string{"", " ", ".", "a\\", "\\", "\u200c", "\xff", "a:", "x", "\ufeff", "\x01"}
	after := []string{
		"", " ", ".", ". .", ":", ":$I", "::$INDEX_ALLOCATION", "\\", "\\b", "\\.git", "\u200d", "\u202e.", "\u206f",
		"\ufeff:", "\xff", "\xc3", "\xed\xa0\x80",
		"\ufffe", "\uffff", "\xf4\x90\x80\x80", "\u00e9", "\n", ":\n", " \n", "%", "%41", "\x7f", "~1", "1", "x",
		"\u212a",
	}
	seen := map[string]bool{}
	var all []string
	add := func(name string) {
		if format.CheckName(name) == nil && !seen[name] {
			seen[name] = true
			all = append(all, name)
		}
	}
	fold := func(s string, how int) string {
		switch how {
		case 1:
			return strings.ToUpper(s)
		case 2:
			return strings.ReplaceAll(s, "i", "I")
		case 3:
			if len(s) > 2 {
				return s[:2] + "\u200c" + s[2:]
			}
		}
		return s
	}
	for _, w := range words {
		for _, b := range before {
			for _, a := range after {
				for how := range 4 {
					add(b + fold(w, how) + a)
				}
			}
		}
		for _, fill := range []string{" ", ".", "x", "\x01", "\\", "%", "\u00e9"} {
			for _, n := range []int{200, 220, 228, 229, 230, 231, 240, 250, 254, 255} {
				name := w + strings.Repeat(fill, n)
				add(name[:min(len(name), n)])
			}
		}
	}
	for c := range 256 {
		add(string([]byte{byte(c)}))
		add("a" + string([]byte{byte(c)}))
		add(".git" + string([]byte{byte(c)}))
		add(string([]byte{byte(c)}) + ".git")
		add("git~1" + string([]byte{byte(c)}))
	}
	return all
}

// Stock git takes a tree of all stored names, and all names come back.
func TestNamesWithGit(t *testing.T) {
	t.Parallel()
	names := generatedNames()
	if len(names) < 31_005 {
		t.Fatalf("only %d names", len(names))
	}
	repo := filepath.Join(t.TempDir(), "r.git")
	coldtest.Git(t, ".", "init", "-q", "-b", "main", "--bare", repo)
	blob, err := coldtest.GitTry(t, repo, []byte("x"), "hash-object", "-w", "--stdin")
	coldtest.Check(t, err)
	blob = strings.TrimSpace(blob)
	var in bytes.Buffer
	stored := map[string]string{}
	for _, name := range names {
		s := format.EncodeName(name)
		if len(s) > format.MaxName {
			t.Fatalf("%q is stored in %d bytes", name, len(s))
		}
		if other, twice := stored[s]; twice {
			t.Fatalf("%q and %q are both stored as %q", name, other, s)
		}
		stored[s] = name
		fmt.Fprintf(&in, "100644 blob %s\t%s\x00", blob, s)
	}
	tree, err := coldtest.GitTry(t, repo, in.Bytes(), "mktree", "-z")
	if err != nil {
		t.Fatal(tree)
	}
	commit := coldtest.Git(t, repo, "commit-tree", "-m", "names", strings.TrimSpace(tree))
	coldtest.Git(t, repo, "update-ref", "refs/heads/main", commit)
	coldtest.Equal(t, coldtest.Git(t, repo, "fsck", "--strict"), "", "git fsck:")
	strict := filepath.Join(t.TempDir(), "strict.git")
	coldtest.Git(t, ".", "init", "-q", "-b", "main", "--bare", strict)
	coldtest.Git(t, strict, "config", "receive.fsckObjects", "true")
	coldtest.Git(t, repo, "push", "-q", strict, "main")
	n, bad := 0, 0
	for s := range strings.SplitSeq(strings.TrimSuffix(coldtest.Git(t, strict, "ls-tree", "-z", "--name-only", "main"),
		"\x00"), "\x00") {
		n++
		name, err := format.DecodeName(s)
		if format.IsHashedName(err) {
			sum := sha256.Sum256([]byte(stored[s]))
			if !strings.HasSuffix(s, hex.EncodeToString(sum[:])) {
				t.Errorf("%q is not the hash of %q", s, stored[s])
			}
		} else if err != nil || name != stored[s] {
			if bad++; bad <= 10 {
				t.Errorf("DecodeName(%q) = %q, %v; want %q", s, name, err, stored[s])
			}
		}
	}
	if bad > 10 {
		t.Errorf("%d names in all", bad)
	}
	if n != len(names) {
		t.Errorf("%d names went in, %d came back", len(names), n)
	}
}

// Names that git would refuse are escaped, and no others: each forbidden form, asked of git itself.
func TestForbiddenAsGitSeesIt(t *testing.T) {
	for name, want := range map[string]string{
		".git": ".emberfs%.git", "a": "a", ".gitignore": ".gitignore", ".GitModules": ".emberfs%.GitModules",
		"a\\.git": ".emberfs%a%5C.git",
		".git:\n": ".emberfs%.git:%0A", ".emberfs": ".emberfs%.emberfs", "50%": "50%",
		".git\ufffe":     ".emberfs%.git\ufffe",
		".git\U0001fffe": ".git\U0001fffe", "gitmod~1": ".emberfs%gitmod~1", "gitmodu~1": "gitmodu~1",
		"~7 .": ".emberfs%~7 .", "a~1": "a~1",
		".g\u0130t": ".g\u0130t", "\\git~0:x\\y": ".emberfs%%5Cgit~0:x%5Cy",
	} {
		coldtest.Equal(t, format.EncodeName(name), want, "EncodeName(%q) =", name)
	}
}

func TestDecodeNameRefuses(t *testing.T) {
	for _, stored := range []string{
		"", ".", "..", "a/b", "a\x00", ".git", ".emberfs", ".emberfs%", ".emberfs%entries", ".emberfs%links",
		".emberfs%chunks", ".emberfs%plain",
		".emberfs%.", ".emberfs%.git%", ".emberfs%.git%2", ".emberfs%.git%0a", ".emberfs%.git:%41", ".emberfs%.git/x",
		".emberfs%.git%2Fx", ".emberfs%%",
		".emberfs%%" + strings.Repeat("A", 64), ".emberfs%%" + strings.Repeat("a", 63), ".emberfs%.git%00",
		strings.Repeat("x", 256),
	} {
		if name, err := format.DecodeName(stored); err == nil || format.IsHashedName(err) {
			t.Errorf("DecodeName(%q) = %q, %v; want an error", stored, name, err)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"a", ".git", ".emberfs%.git", ".emberfs%%", "\xff.GIT\\git~1:x", ".emberfs%entries",
		".g\u200cit ."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if format.CheckName(s) == nil {
			stored := format.EncodeName(s)
			if format.CheckName(stored) != nil || stored == format.OwnName || stored != s &&
				format.ForbiddenForm(format.LowerASCII(strings.TrimPrefix(stored, format.EscapePrefix))) &&
				!strings.HasPrefix(stored, format.EscapePrefix) {
				t.Fatalf("EncodeName(%q) = %q", s, stored)
			}
			if name, err := format.DecodeName(stored); err == nil && name != s || err != nil &&
				!format.IsHashedName(err) {
				t.Fatalf("DecodeName(%q) = %q, %v", stored, name, err)
			}
		}
		if name, err := format.DecodeName(s); err == nil &&
			(format.CheckName(name) != nil || format.EncodeName(name) != s) {
			t.Fatalf("DecodeName(%q) = %q", s, name)
		}
	})
}
