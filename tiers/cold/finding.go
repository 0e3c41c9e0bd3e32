package cold

// Severity says how bad a finding of `emberfs check` is.
type Severity string

const (
	Damaged Severity = "damaged" // something is lost, or would be at the next use
	Risk    Severity = "risk"    // nothing is lost yet, but would be with machine and disk, or at the next mishap
	Note    Severity = "note"    // worth knowing
)

// Finding is one line of the output of `emberfs check`. Path is a name in the volume, Where a file of the state
// directory or of the repository; fields that do not apply are empty.
type Finding struct {
	Severity Severity `json:"severity"`
	What     string   `json:"what"`
	Path     string   `json:"path,omitempty"`
	Path64   []byte   `json:"path64,omitempty"` // used instead of Path if the path is not UTF-8
	Where    string   `json:"where,omitempty"`
	Commit   string   `json:"commit,omitempty"`
	Object   string   `json:"object,omitempty"`
	Do       string   `json:"do,omitempty"` // what to do about it
}

// Need describes something of which warm has only a record: a stub, whose bytes are in cold, or a lazy directory, whose
// children are.
type Need struct {
	Path string
	Dir  bool
	ID   ID // of the content, or the directory's tree
	Meta ID // the directory's metadata tree
	Size int64
}

// Lost is an object of a Need that cold does not have, or not undamaged.
type Lost struct {
	Path   string // relative to the Need's Path
	Object ID
	Err    error
}

// AtRisk is what would be lost if machine and disk were lost now. Seconds is the age of the oldest such change.
type AtRisk struct {
	Files   int64   `json:"files"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
	// Local is what no commit on this machine has, Remote what the remote lacks. Both are nil where only the sum is
	// known, and Remote is nil where there is no remote.
	Local  *RiskPart `json:"local,omitempty"`
	Remote *RiskPart `json:"remote,omitempty"`
}

// RiskPart is what one kind of durability lacks, and how long it would take to save it.
type RiskPart struct {
	Files         int64   `json:"files"`
	Bytes         int64   `json:"bytes"`
	Age           float64 `json:"age"`             // seconds since the oldest change
	SecondsToSave float64 `json:"seconds_to_save"` // estimated, at the measured speed
	Measured      bool    `json:"measured"`        // false: nothing was saved yet, and a careful speed is assumed
}
