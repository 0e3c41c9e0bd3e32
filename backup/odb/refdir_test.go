package odb

import (
	"os"
	"path/filepath"
	"testing"
)

// git removes directories of references that are empty, also those that were just made for a lock.
func TestLockWhereDirectoriesVanish(t *testing.T) {
	dir, db := newRepo(t, Options{})
	id := mustAdd(t, db, ID{}, 0, crashFiles("a"))
	top := filepath.Join(dir, "refs/heads/deep")
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				_ = os.Remove(filepath.Join(top, "er"))
				_ = os.Remove(top)
			}
		}
	}()
	for range 200 {
		const name = "refs/heads/deep/er/x"
		check(t, db.UpdateRef(name, ID{}, id))
		check(t, db.DeleteRef(name, id))
	}
	close(stop)
	<-ended
}
