package cold

// Severity says what a finding of `emberfs check` means.
type Severity string

const (
	Damaged Severity = "damaged" // something is lost, or would be at the next use
	Risk    Severity = "risk"    // all is there, but would not survive the loss of machine and disk, or the next mishap
	Note    Severity = "note"    // worth knowing
)

// Finding is one line of what `emberfs check` says. Path is a true name in the volume, Where a file of the state
// directory or the repository; what does not apply is empty.
type Finding struct {
	Severity Severity `json:"severity"`
	What     string   `json:"what"`
	Path     string   `json:"path,omitempty"`
	Path64   []byte   `json:"path64,omitempty"` // instead of Path where that is not UTF-8
	Where    string   `json:"where,omitempty"`
	Commit   string   `json:"commit,omitempty"`
	Object   string   `json:"object,omitempty"`
	Do       string   `json:"do,omitempty"` // what to do about it
}

// Need is what warm has only a record of: a stub, whose bytes are in cold, or a directory that is not listed yet.
type Need struct {
	Path string
	Dir  bool
	ID   ID // of the content, or the directory's tree
	Meta ID // directory
	Size int64
}

// Lost is an object of a Need that cold has not, or not whole.
type Lost struct {
	Path   string // below the Need's
	Object ID
	Err    error
}

// AtRisk is what would be lost if machine and disk went away now. Seconds is the age of the oldest such change.
type AtRisk struct {
	Files   int64   `json:"files"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}
