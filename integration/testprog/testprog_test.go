package testprog

import (
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// TestWrite starts what it wrote while other programs are started all the time. With os.WriteFile in place of Write
// some of these fail with ETXTBSY.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	stop := make(chan struct{})
	var g sync.WaitGroup
	defer g.Wait()
	defer close(stop)
	for range 4 {
		g.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = exec.Command("/bin/true").Run()
				}
			}
		})
	}
	for range 300 {
		path := filepath.Join(dir, "program")
		if err := Write(path, "#!/bin/sh\n"); err != nil {
			t.Fatal(err)
		}
		if err := exec.Command(path).Run(); err != nil {
			t.Fatal(err)
		}
	}
}
