package format

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	OwnName      = ".emberfs"   // EmberFS's directory at the root of a commit
	EscapePrefix = ".emberfs%"  // an escaped name follows
	HashPrefix   = ".emberfs%%" // 64 hex digits of sha256(name) follow
	MaxName      = 255          // bytes of a directory entry's name, on disk and in a tree
)

// errHashedName says that the stored name is a hash, and that the true name is in the metadata.
var errHashedName = errors.New("stored name is a hash, its true name is in the metadata")

// EncodeName returns the name of a directory entry in a git tree (FORMAT.md section 2). A name that git and forges
// accept is not changed.
func EncodeName(name string) string {
	if !Forbidden(name) {
		return name
	}
	b := make([]byte, 0, len(EscapePrefix)+len(name)+8)
	b = append(b, EscapePrefix...)
	for i := 0; i < len(name); i++ {
		if c := name[i]; c == '%' || c == '\\' || c < 0x20 || c == 0x7f {
			const digits = "0123456789ABCDEF"
			b = append(b, '%', digits[c>>4], digits[c&15])
		} else {
			b = append(b, c)
		}
	}
	if len(b) > MaxName {
		sum := sha256.Sum256([]byte(name))
		return HashPrefix + hex.EncodeToString(sum[:])
	}
	return string(b)
}

// DecodeName returns the true name for a stored one. It only accepts what EncodeName returns. For a name in hashed form
// it returns an error for which IsHashedName is true; the true name is then in the directory's metadata.
func DecodeName(stored string) (string, error) {
	// An escaped name may begin in the same way, but 64 hex digits never follow, because a name of such digits is not
	// forbidden.
	if h, ok := strings.CutPrefix(stored, HashPrefix); ok && len(h) == 64 && strings.Trim(h, hexDigits) == "" {
		return "", errHashedName
	}
	name := stored
	if rest, ok := strings.CutPrefix(stored, EscapePrefix); ok {
		var err error
		if name, err = unescape(rest); err != nil {
			return "", fmt.Errorf("stored name %q: %w", stored, err)
		}
	}
	if err := CheckName(name); err != nil {
		return "", fmt.Errorf("stored name %q: %w", stored, err)
	}
	if EncodeName(name) != stored {
		return "", fmt.Errorf("stored name %q: not the stored form of %q", stored, name)
	}
	return name, nil
}

// IsHashedName reports whether DecodeName failed because the stored name is a hash, so that the true name is in the
// metadata.
func IsHashedName(err error) bool { return errors.Is(err, errHashedName) }

// StandInMark ends, followed by 16 hex digits, a name that stands in for one that no directory can hold.
const StandInMark = "~"

// StandIn returns the name under which a directory shows an entry whose name in git cannot be used here: because it is
// too long, or is not the stored form of any name. It consists of the beginning of that name and a hash of all of it.
// Higher values of try give further names, for when a name is taken.
func StandIn(stored string, try int) string {
	all := stored
	if try > 0 {
		all += "/" + strconv.Itoa(try)
	}
	sum := sha256.Sum256([]byte(all))
	const most = 200
	head := stored
	if len(head) > most {
		for head = head[:most]; len(head) > most-utf8.UTFMax && !utf8.ValidString(head); {
			head = head[:len(head)-1]
		}
	}
	return head + StandInMark + hex.EncodeToString(sum[:8])
}

// StandInTries is how many such names are tried; so many are taken only if somebody did so on purpose.
const StandInTries = 8

// StandsIn reports whether name is a stand-in for the stored name.
func StandsIn(name, stored string) bool {
	for try := range StandInTries {
		if StandIn(stored, try) == name {
			return true
		}
	}
	return false
}

// MayStandIn reports whether a name looks like a result of StandIn.
func MayStandIn(name string) bool {
	i := len(name) - 16
	return i > len(StandInMark) && strings.HasSuffix(name[:i], StandInMark) && strings.Trim(name[i:], hexDigits) == ""
}

// CheckName returns an error for a name that no directory can hold.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("empty name")
	case name == "." || name == "..":
		return fmt.Errorf("name %q is not an entry", name)
	case len(name) > MaxName:
		return fmt.Errorf("name of %d bytes is longer than %d", len(name), MaxName)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("name %q holds a slash or NUL", name)
	}
	return nil
}

func unescape(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", errors.New("cut off after %")
		}
		v, err := hex.DecodeString(s[i+1 : i+3])
		if err != nil {
			return "", fmt.Errorf("escape %q: want two hex digits", s[i:i+3])
		}
		b = append(b, v[0])
		i += 2
	}
	return string(b), nil
}

// Forbidden reports whether git, a forge or EmberFS itself gives the name a meaning of its own.
func Forbidden(name string) bool {
	raw := LowerASCII(name)
	if ForbiddenForm(raw) {
		return true
	}
	if isASCII(raw) {
		return false
	}
	return ForbiddenForm(hfsForm(raw))
}

// ForbiddenForm reports whether a name, in lower case, is one to which git gives a meaning, or a spelling that some
// file system takes for such a name.
func ForbiddenForm(s string) bool {
	if strings.HasPrefix(s, OwnName) {
		return true
	}
	if !strings.Contains(s, "~") && !strings.Contains(s, ".git") {
		return false
	}
	for {
		segment, rest, more := strings.Cut(s, `\`)
		if forbiddenSegment(segment) {
			return true
		}
		if !more {
			return false
		}
		s = rest
	}
}

// forbiddenSegment matches ^(\.git|\.gitmodules|\.gitattributes|(g[a-z0-9]{0,5})?~[0-9]+)[. ]*(:.*)?$
func forbiddenSegment(s string) bool {
	if rest, ok := strings.CutPrefix(s, ".git"); ok {
		if ntfsTail(rest) {
			return true
		}
		for _, file := range []string{"modules", "attributes"} {
			if tail, ok := strings.CutPrefix(rest, file); ok && ntfsTail(tail) {
				return true
			}
		}
		return false
	}
	i := 0
	if strings.HasPrefix(s, "g") {
		for i = 1; i < len(s) && i <= 5 && (isDigit(s[i]) || s[i] >= 'a' && s[i] <= 'z'); i++ {
		}
	}
	if i >= len(s) || s[i] != '~' {
		return false
	}
	first := i + 1
	for i = first; i < len(s) && isDigit(s[i]); i++ {
	}
	return i > first && ntfsTail(s[i:])
}

// ntfsTail reports whether s is something that NTFS ignores after a name: dots, spaces, and a stream after a colon.
func ntfsTail(s string) bool {
	s = strings.TrimLeft(s, ". ")
	return s == "" || s[0] == ':'
}

// hfsForm returns the name as HFS+ would compare it: truncated at the first sequence that git considers malformed, and
// without the code points that HFS+ ignores.
func hfsForm(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		// git considers U+FFFE and U+FFFF malformed too, and so sees ".git" in ".git\uFFFE".
		if r == utf8.RuneError && n <= 1 || r == 0xFFFE || r == 0xFFFF {
			break
		}
		if !hfsIgnored(r) {
			b = append(b, s[i:i+n]...)
		}
		i += n
	}
	return string(b)
}

func hfsIgnored(r rune) bool {
	return r >= 0x200C && r <= 0x200F || r >= 0x202A && r <= 0x202E || r >= 0x206A && r <= 0x206F || r == 0xFEFF
}

// LowerASCII changes only A-Z; strings.ToLower would fold letters that git does not fold.
func LowerASCII(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] >= 'A' && s[i] <= 'Z' {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				if b[j] >= 'A' && b[j] <= 'Z' {
					b[j] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// PlainForbidden reports whether a stored name is forbidden but nevertheless taken for an unescaped name, because a
// stock client may well add .gitattributes or .gitmodules. Names that begin with OwnName never are.
func PlainForbidden(stored string) bool {
	return !strings.HasPrefix(stored, OwnName) && CheckName(stored) == nil && Forbidden(stored)
}
