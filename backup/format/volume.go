package format

import (
	"encoding/json"
	"errors"
	"fmt"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

const (
	formatVersion = 1

	VolumeName     = "volume.json"
	AttributesName = ".gitattributes"
	RulesName      = "rules.yaml"
	OpenedName     = "opened"
	MetaName       = "meta"

	Attributes = "* -text -diff\n"

	maxVolumeBlob = 64 << 10
	maxVolumeID   = 128
)

// ErrNewerFormat says that a newer version of EmberFS wrote the volume in a way that this one cannot read.
var ErrNewerFormat = errors.New("the volume has a newer format than this version of emberfs reads")

// volumeFile is the content of .emberfs/volume.json.
type volumeFile struct {
	Format int    `json:"format"`
	Volume string `json:"volume"`
	// Requires names features that a reader must know besides the format; this version knows none.
	Requires []string `json:"requires,omitempty"`
}

// EncodeVolume returns the content of volume.json for a volume with this id.
func EncodeVolume(id string) ([]byte, error) {
	b, err := json.Marshal(volumeFile{Format: formatVersion, Volume: id})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", VolumeName, err)
	}
	return append(b, '\n'), nil
}

func decodeVolume(data []byte) (volumeFile, error) {
	var v volumeFile
	if err := json.Unmarshal(data, &v); err != nil {
		return v, fmt.Errorf("%s/%s: %w: %w", OwnName, VolumeName, cold.ErrCorrupt, err)
	}
	switch {
	case v.Format > formatVersion:
		return v, fmt.Errorf("%s/%s: format %d: %w", OwnName, VolumeName, v.Format, ErrNewerFormat)
	case len(v.Requires) > 0:
		return v, fmt.Errorf("%s/%s: needs %q: %w", OwnName, VolumeName, v.Requires, ErrNewerFormat)
	case v.Format < 1:
		return v, fmt.Errorf("%s/%s: %w: format %d", OwnName, VolumeName, cold.ErrCorrupt, v.Format)
	case CheckVolumeID(v.Volume) != nil:
		return v, fmt.Errorf("%s/%s: %w: %w", OwnName, VolumeName, cold.ErrCorrupt, CheckVolumeID(v.Volume))
	}
	return v, nil
}

// CheckVolumeID returns an error if an id is not fit for a trailer, a file name and a log line.
func CheckVolumeID(id string) error {
	if id == "" || len(id) > maxVolumeID {
		return fmt.Errorf("volume id of %d bytes", len(id))
	}
	for _, c := range []byte(id) {
		if !isDigit(c) && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' && c != '.' {
			return fmt.Errorf("volume id %q: want letters, digits, '-', '_' and '.'", id)
		}
	}
	return nil
}

// OwnDir is what a commit's directory .emberfs contains.
type OwnDir struct {
	Volume volumeFile
	Found  bool          // volume.json exists
	Rules  odb.TreeEntry // rules.yaml, which may be something else than a file; Mode is 0 if there is none
	Opened odb.TreeEntry // the list of files in the order of first opening; Mode is 0 if there is none
	Meta   cold.ID       // the tree of the root's metadata; zero if there is none
	Known  []cold.ID     // ids of the directory and of its entries
}

// LoadOwn reads .emberfs from a commit's root tree. Entries of the wrong type are problems; only a newer format is an
// error.
func LoadOwn(db Objects, root []odb.TreeEntry, p *Problems) (OwnDir, error) {
	var o OwnDir
	var dir odb.TreeEntry
	for _, e := range root {
		if e.Name == OwnName {
			dir = e
		}
	}
	if dir.Mode == 0 {
		return o, nil
	}
	if dir.Mode != odb.ModeTree {
		p.Add(fmt.Errorf("%s: %w: mode %o, not a directory", OwnName, cold.ErrCorrupt, dir.Mode))
		return o, nil
	}
	entries, err := ReadTree(db, dir.ID, p)
	if err != nil {
		p.Add(fmt.Errorf("%s: %w", OwnName, err))
		return o, nil
	}
	o.Known = append(o.Known, dir.ID)
	for _, e := range entries {
		o.Known = append(o.Known, e.ID)
		switch {
		case e.Name == MetaName && e.Mode == odb.ModeTree:
			o.Meta = e.ID
		case e.Name == OpenedName && e.Mode == odb.ModeFile:
			o.Opened = e
		case e.Name == VolumeName && e.Mode == odb.ModeFile:
			data, err := db.Read(e.ID, odb.Blob, maxVolumeBlob)
			if err == nil {
				o.Volume, err = decodeVolume(data)
			}
			if errors.Is(err, ErrNewerFormat) {
				return o, err
			}
			if err != nil {
				p.Add(err)
				continue
			}
			o.Found = true
		case e.Name == RulesName:
			if o.Rules = e; e.Mode != odb.ModeFile {
				p.Add(fmt.Errorf("%s/%s: %w: mode %o", OwnName, e.Name, cold.ErrCorrupt, e.Mode))
			}
		case e.Name == MetaName, e.Name == OpenedName, e.Name == VolumeName:
			p.Add(fmt.Errorf("%s/%s: %w: mode %o", OwnName, e.Name, cold.ErrCorrupt, e.Mode))
		}
	}
	return o, nil
}
