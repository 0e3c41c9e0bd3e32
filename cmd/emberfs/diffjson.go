package main

import (
	"fmt"
	"unicode/utf8"

	"emberfs/backup/log"
	"emberfs/tiers/cold"
)

// changeReply is a change in JSON. Names and targets that are not UTF-8 are in separate fields in base64, as in a
// volume's metadata.
type changeReply struct {
	Status string      `json:"status"`
	Path   string      `json:"path,omitempty"`
	Path64 []byte      `json:"path64,omitempty"`
	Fields []string    `json:"fields,omitempty"`
	Old    *entryReply `json:"old,omitempty"`
	New    *entryReply `json:"new,omitempty"`
}

type entryReply struct {
	Type  string `json:"type"`
	Mode  string `json:"mode"`
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	Mtime string `json:"mtime"`
	Size  int64  `json:"size"`
	// The object's id; omitted if only the directory has the content.
	ID       string            `json:"id,omitempty"`
	Target   string            `json:"target,omitempty"`
	Target64 []byte            `json:"target64,omitempty"`
	Rdev     string            `json:"rdev,omitempty"`
	Link     string            `json:"link,omitempty"`
	Xattrs   map[string][]byte `json:"xattrs,omitempty"`
}

func changeJSON(c *log.Change) changeReply {
	out := changeReply{Status: string(rune(c.Status)), Fields: c.Fields, Old: entryJSON(c.Old), New: entryJSON(c.New)}
	if out.Path = c.Path; c.Path == "" {
		out.Path = "."
	}
	if !utf8.ValidString(c.Path) {
		out.Path, out.Path64 = "", []byte(c.Path)
	}
	return out
}

func entryJSON(e *cold.Entry) *entryReply {
	if e == nil {
		return nil
	}
	out := &entryReply{Type: e.Kind.String(), Mode: fmt.Sprintf("%04o", e.Mode), UID: e.UID, GID: e.GID,
		Mtime: mtimeText(e.Mtime),
		Size:  e.Size, Link: e.Link}
	if !e.ID.IsZero() {
		out.ID = e.ID.String()
	}
	if e.Kind == cold.KindChar || e.Kind == cold.KindBlock {
		out.Rdev = rdevText(e)
	}
	if utf8.ValidString(e.Target) {
		out.Target = e.Target
	} else {
		out.Target64 = []byte(e.Target)
	}
	if len(e.Xattrs) > 0 {
		out.Xattrs = map[string][]byte{}
	}
	for _, x := range e.Xattrs {
		out.Xattrs[x.Name] = x.Value
	}
	return out
}
