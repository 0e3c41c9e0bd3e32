package format

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxSkipDepth is how deeply a value that is skipped may be nested.
const maxSkipDepth = 32

// JSONReader parses one line of JSON strictly. encoding/json accepts keys in any case, duplicate keys and invalid
// UTF-8; with any of these two readers could see two different files.
type JSONReader struct {
	B []byte
	i int
}

func (r *JSONReader) errorf(format string, a ...any) error {
	return fmt.Errorf("byte %d: %w", r.i, fmt.Errorf(format, a...))
}

func (r *JSONReader) space() {
	for r.i < len(r.B) && (r.B[r.i] == ' ' || r.B[r.i] == '\t' || r.B[r.i] == '\r') {
		r.i++
	}
}

// peek returns the next byte that is not a space, or 0 at the end.
func (r *JSONReader) peek() byte {
	r.space()
	if r.i >= len(r.B) {
		return 0
	}
	return r.B[r.i]
}

func (r *JSONReader) accept(c byte) bool {
	if r.peek() != c || r.i >= len(r.B) {
		return false
	}
	r.i++
	return true
}

func (r *JSONReader) expect(c byte) error {
	if !r.accept(c) {
		return r.errorf("want %q", c)
	}
	return nil
}

// End returns an error unless everything was read.
func (r *JSONReader) End() error {
	r.space()
	if r.i != len(r.B) {
		return r.errorf("something follows the object")
	}
	return nil
}

// Object parses an object and calls value for each key, in order. A key that comes twice is an error. For a key that it
// does not know, value must return ErrUnknownKey; the key is then skipped if it begins with "x_", and otherwise an
// error.
func (r *JSONReader) Object(value func(key string) error) error {
	if err := r.expect('{'); err != nil {
		return err
	}
	if r.accept('}') {
		return nil
	}
	var seen [24]string
	keys := seen[:0]
	for {
		key, err := r.Str()
		if err != nil {
			return err
		}
		for _, k := range keys {
			if k == key {
				return r.errorf("key %q comes twice", key)
			}
		}
		if len(keys) == cap(keys) {
			return r.errorf("more than %d keys", cap(keys))
		}
		keys = append(keys, key)
		if err := r.expect(':'); err != nil {
			return err
		}
		r.space()
		err = value(key)
		if errors.Is(err, ErrUnknownKey) {
			if !strings.HasPrefix(key, optionalPrefix) {
				return r.errorf("key %q is not known to this version", key)
			}
			err = r.skip(0)
		}
		if err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
		if r.accept('}') {
			return nil
		}
		if err := r.expect(','); err != nil {
			return err
		}
		r.space()
	}
}

// optionalPrefix is the prefix of keys that a reader may ignore.
const optionalPrefix = "x_"

var ErrUnknownKey = errors.New("unknown key")

// array calls value for each element.
func (r *JSONReader) array(value func() error) error {
	if err := r.expect('['); err != nil {
		return err
	}
	if r.accept(']') {
		return nil
	}
	for {
		r.space()
		if err := value(); err != nil {
			return err
		}
		if r.accept(']') {
			return nil
		}
		if err := r.expect(','); err != nil {
			return err
		}
	}
}

// Str parses a string. An escape for something that UTF-8 cannot express is an error.
func (r *JSONReader) Str() (string, error) {
	if err := r.expect('"'); err != nil {
		return "", err
	}
	start := r.i
	for r.i < len(r.B) {
		switch c := r.B[r.i]; {
		case c == '"':
			s := r.B[start:r.i]
			if !utf8.Valid(s) {
				return "", r.errorf("string is not UTF-8")
			}
			r.i++
			return string(s), nil
		case c == '\\':
			return r.escaped(start)
		case c < 0x20:
			return "", r.errorf("control character in a string")
		}
		r.i++
	}
	return "", r.errorf("string without an end")
}

// escaped continues with a string that contains escapes.
func (r *JSONReader) escaped(start int) (string, error) {
	out := append([]byte(nil), r.B[start:r.i]...)
	for r.i < len(r.B) {
		c := r.B[r.i]
		switch {
		case c == '"':
			r.i++
			if !utf8.Valid(out) {
				return "", r.errorf("string is not UTF-8")
			}
			return string(out), nil
		case c < 0x20:
			return "", r.errorf("control character in a string")
		case c != '\\':
			out = append(out, c)
			r.i++
			continue
		}
		if r.i+1 >= len(r.B) {
			break
		}
		e := r.B[r.i+1]
		r.i += 2
		if k := strings.IndexByte(`"\/bfnrt`, e); k >= 0 {
			out = append(out, "\"\\/\b\f\n\r\t"[k])
			continue
		}
		if e != 'u' {
			return "", r.errorf("escape \\%c", e)
		}
		u, err := r.hex4()
		if err != nil {
			return "", err
		}
		if u >= 0xD800 && u < 0xDC00 && r.i+6 <= len(r.B) && r.B[r.i] == '\\' && r.B[r.i+1] == 'u' {
			r.i += 2
			low, err := r.hex4()
			if err != nil {
				return "", err
			}
			if low < 0xDC00 || low > 0xDFFF {
				return "", r.errorf("half a surrogate pair")
			}
			u = 0x10000 + (u-0xD800)<<10 + (low - 0xDC00)
		}
		if u >= 0xD800 && u <= 0xDFFF {
			return "", r.errorf("half a surrogate pair")
		}
		out = utf8.AppendRune(out, u)
	}
	return "", r.errorf("string without an end")
}

func (r *JSONReader) hex4() (rune, error) {
	if r.i+4 > len(r.B) {
		return 0, r.errorf("cut off in an escape")
	}
	var u rune
	for _, c := range r.B[r.i : r.i+4] {
		switch {
		case isDigit(c):
			u = u<<4 + rune(c-'0')
		case c >= 'a' && c <= 'f':
			u = u<<4 + rune(c-'a') + 10
		case c >= 'A' && c <= 'F':
			u = u<<4 + rune(c-'A') + 10
		default:
			return 0, r.errorf("escape with %q", c)
		}
	}
	r.i += 4
	return u, nil
}

// Base64 parses a string of standard base64 with padding.
func (r *JSONReader) Base64() (string, error) {
	s, err := r.Str()
	if err != nil {
		return "", err
	}
	v, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return "", r.errorf("base64: %w", err)
	}
	// The decoder would ignore line breaks, but a value must have only one form.
	if strings.ContainsAny(s, "\r\n") {
		return "", r.errorf("base64 with line breaks")
	}
	return string(v), nil
}

// integer parses a whole number without fraction or exponent, from low to high.
func (r *JSONReader) integer(low, high int64) (int64, error) {
	start := r.i
	if r.i < len(r.B) && r.B[r.i] == '-' {
		r.i++
	}
	digits := r.i
	for r.i < len(r.B) && isDigit(r.B[r.i]) {
		r.i++
	}
	text := string(r.B[start:r.i])
	if r.i == digits || r.B[digits] == '0' && r.i > digits+1 || text == "-0" {
		return 0, r.errorf("want a whole number")
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < low || n > high {
		return 0, r.errorf("number %s is not within %d..%d", text, low, high)
	}
	return n, nil
}

// skip passes over any value.
func (r *JSONReader) skip(depth int) error {
	if depth > maxSkipDepth {
		return r.errorf("nested deeper than %d", maxSkipDepth)
	}
	switch c := r.peek(); {
	case c == '"':
		_, err := r.Str()
		return err
	case c == '[':
		return r.array(func() error { return r.skip(depth + 1) })
	case c == '{':
		r.i++
		if r.accept('}') {
			return nil
		}
		for {
			r.space()
			if _, err := r.Str(); err != nil {
				return err
			}
			if err := r.expect(':'); err != nil {
				return err
			}
			if err := r.skip(depth + 1); err != nil {
				return err
			}
			if r.accept('}') {
				return nil
			}
			if err := r.expect(','); err != nil {
				return err
			}
		}
	}
	start := r.i
	for r.i < len(r.B) && strings.IndexByte("+-.0123456789abcdefghijklmnopqrstuvwxyzE", r.B[r.i]) >= 0 {
		r.i++
	}
	if !json.Valid(r.B[start:r.i]) {
		return r.errorf("want a value")
	}
	return nil
}

// appendJSON appends s, which must be UTF-8, as a JSON string.
func appendJSON(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\t':
			b = append(b, '\\', 't')
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// AppendText appends `"key":"text"`, or `"key64":"base64"` if the text is not UTF-8.
func AppendText(b []byte, key, s string) []byte {
	b = append(b, '"')
	b = append(b, key...)
	if utf8.ValidString(s) {
		b = append(b, '"', ':')
		return appendJSON(b, s)
	}
	b = append(b, '6', '4', '"', ':')
	return appendBase64(b, s)
}

// appendBase64 appends s as a JSON string of base64.
func appendBase64(b []byte, s string) []byte {
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, []byte(s))
	return append(b, '"')
}
