//go:build slow

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestNetServerFull: the server's disk is full, and has room again later. What was committed meanwhile is pushed then,
// without being asked.
func TestNetServerFull(t *testing.T) {
	for _, tr := range both() {
		t.Run(tr.name, func(t *testing.T) {
			t.Parallel()
			deadline(t, 3*time.Minute)
			disk := smallDisk(t, "disk", 32)
			s := tr.start(t, filepath.Join(disk, "server"))
			v := remoteVolume(t, "v", s, 0).mount()
			v.write("f", "one")
			v.sync()
			must(t, "/", "sh", "-c", "head -c 100M /dev/zero >"+disk+"/ballast || true")
			files := map[string]string{"f": "two"}
			v.write("f", "two")
			for i := range 3 {
				name := fmt.Sprint("big", i)
				files[name] = string(noise(1<<20, name))
				v.write(name, files[name])
			}
			v.syncs(3, "to a server whose disk is full")
			if st := v.status(); st.AtRisk.Files == 0 || len(st.Errors) == 0 {
				t.Errorf("status: at risk %+v, errors %q", st.AtRisk, st.Errors)
			}
			v.write("g", "meanwhile")
			files["g"] = "meanwhile"
			v.syncs(3, "to a server whose disk is still full")
			check(t, os.Remove(disk+"/ballast"))
			v.converges(s, "after the server has room")
			v.remoteSound(s, files)
			v.umount()
		})
	}
}
