package odb

import (
	"os/exec"
	"testing"
	"time"
)

// TestOwnerDead: a process that was killed and waits for its parent holds nothing any more, nor does a program that got
// its number.
func TestOwnerDead(t *testing.T) {
	self, err := thisProcess()
	check(t, err)
	if self.dead(self) {
		t.Error("this process is said to be dead")
	}
	cmd := exec.Command("sleep", "60")
	check(t, cmd.Start())
	other := owner{self.boot, cmd.Process.Pid}
	if !other.dead(self) {
		t.Error("another program is taken for one of ours")
	}
	same := exec.Command("/proc/self/exe", "-test.run=^$")
	same.Env = []string{}
	check(t, same.Start())
	zombie := owner{self.boot, same.Process.Pid}
	for end := time.Now().Add(10 * time.Second); !zombie.dead(self); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a dead process that waits for its parent is taken for one that lives")
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	_ = same.Wait()
}
