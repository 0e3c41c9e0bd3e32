package backup

import (
	"encoding/json"
	"errors"
	"fmt"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

const (
	formatVersion = 1

	volumeName     = "volume.json"
	attributesName = ".gitattributes"
	rulesName      = "rules.yaml"
	openedName     = "opened"
	metaName       = "meta"

	attributes = "* -text -diff\n"

	maxVolumeBlob = 64 << 10
	maxVolumeID   = 128
)

// ErrNewerFormat: the volume was written by a later version in a way that this one cannot read.
var ErrNewerFormat = errors.New("the volume has a newer format than this version of emberfs reads")

// volumeFile is .emberfs/volume.json.
type volumeFile struct {
	Format int    `json:"format"`
	Volume string `json:"volume"`
	// Requires names what a reader must know beyond the format; this version knows of nothing.
	Requires []string `json:"requires,omitempty"`
}

func encodeVolume(id string) ([]byte, error) {
	b, err := json.Marshal(volumeFile{Format: formatVersion, Volume: id})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", volumeName, err)
	}
	return append(b, '\n'), nil
}

func decodeVolume(data []byte) (volumeFile, error) {
	var v volumeFile
	if err := json.Unmarshal(data, &v); err != nil {
		return v, fmt.Errorf("%s/%s: %w: %w", ownName, volumeName, cold.ErrCorrupt, err)
	}
	switch {
	case v.Format > formatVersion:
		return v, fmt.Errorf("%s/%s: format %d: %w", ownName, volumeName, v.Format, ErrNewerFormat)
	case len(v.Requires) > 0:
		return v, fmt.Errorf("%s/%s: needs %q: %w", ownName, volumeName, v.Requires, ErrNewerFormat)
	case v.Format < 1:
		return v, fmt.Errorf("%s/%s: %w: format %d", ownName, volumeName, cold.ErrCorrupt, v.Format)
	case checkVolumeID(v.Volume) != nil:
		return v, fmt.Errorf("%s/%s: %w: %w", ownName, volumeName, cold.ErrCorrupt, checkVolumeID(v.Volume))
	}
	return v, nil
}

// checkVolumeID keeps ids fit for a trailer, a file name and a log line.
func checkVolumeID(id string) error {
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

// ownDir is what a commit's .emberfs holds.
type ownDir struct {
	volume volumeFile
	found  bool          // volume.json is there
	rules  odb.TreeEntry // rules.yaml, which need not be a file; Mode 0: none
	opened odb.TreeEntry // the files that a session opened first; Mode 0: none
	meta   cold.ID       // zero: none
	known  []cold.ID     // the directory and its entries
}

// loadOwn reads .emberfs of a commit's root tree. Files of the wrong type are problems; only a newer format is an error.
func loadOwn(db objects, root []odb.TreeEntry, p *problems) (ownDir, error) {
	var o ownDir
	var dir odb.TreeEntry
	for _, e := range root {
		if e.Name == ownName {
			dir = e
		}
	}
	if dir.Mode == 0 {
		return o, nil
	}
	if dir.Mode != odb.ModeTree {
		p.add(fmt.Errorf("%s: %w: mode %o, not a directory", ownName, cold.ErrCorrupt, dir.Mode))
		return o, nil
	}
	entries, err := readTree(db, dir.ID, p)
	if err != nil {
		p.add(fmt.Errorf("%s: %w", ownName, err))
		return o, nil
	}
	o.known = append(o.known, dir.ID)
	for _, e := range entries {
		o.known = append(o.known, e.ID)
		switch {
		case e.Name == metaName && e.Mode == odb.ModeTree:
			o.meta = e.ID
		case e.Name == openedName && e.Mode == odb.ModeFile:
			o.opened = e
		case e.Name == volumeName && e.Mode == odb.ModeFile:
			data, err := db.Read(e.ID, odb.Blob, maxVolumeBlob)
			if err == nil {
				o.volume, err = decodeVolume(data)
			}
			if errors.Is(err, ErrNewerFormat) {
				return o, err
			}
			if err != nil {
				p.add(err)
				continue
			}
			o.found = true
		case e.Name == rulesName:
			if o.rules = e; e.Mode != odb.ModeFile {
				p.add(fmt.Errorf("%s/%s: %w: mode %o", ownName, e.Name, cold.ErrCorrupt, e.Mode))
			}
		case e.Name == metaName, e.Name == openedName, e.Name == volumeName:
			p.add(fmt.Errorf("%s/%s: %w: mode %o", ownName, e.Name, cold.ErrCorrupt, e.Mode))
		}
	}
	return o, nil
}
