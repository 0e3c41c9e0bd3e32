package backup

import "emberfs/backup/wire"

// dial opens the remote at a source.
func dial(source string) (remote, error) { return wire.Open(source) }
