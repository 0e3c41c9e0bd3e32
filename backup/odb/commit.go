package odb

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"emberfs/tiers/cold"
)

// Signature says who did something to a commit, and when. The time is stored in seconds, with its time zone.
type Signature struct {
	Name, Email string
	When        time.Time
}

// CommitData is the content of a commit.
type CommitData struct {
	Tree              ID
	Parents           []ID
	Author, Committer Signature
	Message           string
}

const maxParents = 1 << 20 // a commit of the size that we read cannot name more

// EncodeCommit returns the content of a commit. Characters that git does not allow in names (<, >, newlines, NUL, junk
// at the ends) are removed, and times before 1970 become 0. A NUL in the message or a zero tree is an error.
func EncodeCommit(c CommitData) ([]byte, error) {
	if c.Tree.IsZero() {
		return nil, errors.New("encode commit: no tree")
	}
	if strings.IndexByte(c.Message, 0) >= 0 {
		return nil, errors.New("encode commit: NUL in the message")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "tree %s\n", c.Tree)
	for _, p := range c.Parents {
		if p.IsZero() {
			return nil, errors.New("encode commit: zero parent")
		}
		fmt.Fprintf(&b, "parent %s\n", p)
	}
	encodeSignature(&b, "author", c.Author)
	encodeSignature(&b, "committer", c.Committer)
	b.WriteByte('\n')
	b.WriteString(c.Message)
	return b.Bytes(), nil
}

func encodeSignature(b *bytes.Buffer, key string, s Signature) {
	sec := max(s.When.Unix(), 0)
	_, off := s.When.Zone()
	sign := '+'
	if off < 0 {
		sign, off = '-', -off
	}
	fmt.Fprintf(b, "%s %s <%s> %d %c%02d%02d\n", key, cleanName(s.Name), cleanName(s.Email), sec, sign, off/3600%100,
		off/60%60)
}

// cleanName removes characters that would end the field, and those that git strips at the ends.
func cleanName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '<' || r == '>' || r == '\n' || r == 0 {
			return -1
		}
		return r
	}, s)
	return strings.TrimFunc(s, func(r rune) bool { return r <= ' ' || strings.ContainsRune(".,:;\"\\'", r) })
}

// DecodeCommit parses the content of a commit. If the tree or a parent is invalid, the error is cold.ErrCorrupt.
// Unknown headers are skipped. An invalid signature yields the zero time, because old tools wrote many of those.
func DecodeCommit(data []byte) (CommitData, error) {
	var c CommitData
	head, msg, ok := bytes.Cut(data, []byte("\n\n"))
	if !ok {
		head = bytes.TrimSuffix(data, []byte("\n"))
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return c, corruptf("commit: NUL in the header")
	}
	c.Message = string(msg)
	lines := strings.Split(string(head), "\n")
	var err error
	if c.Tree, err = headerID(lines[0], "tree "); err != nil {
		return c, err
	}
	lines = lines[1:]
	for len(lines) > 0 && strings.HasPrefix(lines[0], "parent ") {
		if len(c.Parents) == maxParents {
			return c, corruptf("commit: over %d parents", maxParents)
		}
		p, err := headerID(lines[0], "parent ")
		if err != nil {
			return c, err
		}
		c.Parents = append(c.Parents, p)
		lines = lines[1:]
	}
	author, committer := false, false
	for _, l := range lines {
		if v, ok := strings.CutPrefix(l, "author "); ok && !author {
			c.Author, author = decodeSignature(v), true
		} else if v, ok := strings.CutPrefix(l, "committer "); ok && !committer {
			c.Committer, committer = decodeSignature(v), true
		}
	}
	if !author || !committer {
		return c, corruptf("commit: no author or committer")
	}
	return c, nil
}

func headerID(line, key string) (ID, error) {
	v, ok := strings.CutPrefix(line, key)
	if !ok {
		return ID{}, corruptf("commit: no %sheader", key)
	}
	id, err := cold.ParseID(v)
	if err != nil || id.IsZero() || id.String() != v {
		return ID{}, corruptf("commit: %s%.50q", key, v)
	}
	return id, nil
}

func decodeSignature(s string) Signature {
	var g Signature
	lt, gt := strings.IndexByte(s, '<'), strings.LastIndexByte(s, '>')
	if lt < 0 || gt < lt {
		g.Name = strings.TrimSpace(s)
		return g
	}
	g.Name = strings.TrimSpace(s[:lt])
	g.Email = s[lt+1 : gt]
	f := strings.Fields(s[gt+1:])
	if len(f) == 0 {
		return g
	}
	sec, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil || sec < 0 || sec > 1<<40 {
		return g
	}
	g.When = time.Unix(sec, 0).UTC()
	if len(f) > 1 && len(f[1]) == 5 && (f[1][0] == '+' || f[1][0] == '-') {
		if hm, err := strconv.ParseUint(f[1][1:], 10, 16); err == nil {
			off := int(hm/100*3600+hm%100*60) % (24 * 3600) // git fsck takes any four digits
			if f[1][0] == '-' {
				off = -off
			}
			g.When = g.When.In(time.FixedZone("", off))
		}
	}
	return g
}
