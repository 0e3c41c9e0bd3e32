package fs

import (
	"sync"
	"testing"
)

func TestHandleTable(t *testing.T) {
	var tab handleTable[int]
	if tab.get(0) != nil || tab.get(1<<40) != nil || tab.take(5) != nil {
		t.Fatal("an empty table finds something")
	}
	const each, users = 3000, 4
	var wg sync.WaitGroup
	var seen sync.Map
	for u := range users {
		wg.Go(func() {
			for i := range each {
				x := u*each + i
				fh, err := tab.put(&x)
				if err != nil {
					t.Error(err)
				}
				if _, dup := seen.LoadOrStore(fh, true); dup && i%2 == 0 {
					t.Errorf("%d given out twice", fh)
				}
				if p := tab.get(fh); p == nil || *p != x {
					t.Errorf("%d is not found", fh)
				}
				if i%2 == 1 {
					seen.Delete(fh)
					if p := tab.take(fh); p == nil || *p != x {
						t.Errorf("%d is not taken", fh)
					}
				}
			}
		})
	}
	wg.Wait()
	left := 0
	tab.drain(func(*int) { left++ })
	if left != users*each/2 {
		t.Errorf("%d left, want %d", left, users*each/2)
	}
	if fh, err := tab.put(new(int)); err != nil || fh >= users*each {
		t.Errorf("%d %v: numbers are not used again", fh, err)
	}
}

func TestHideName(t *testing.T) {
	head := make([]byte, 40)
	for op, skip := range map[uint32]int{opLookup: 0, opMkdir: 8, opMknod: 16, opCreate: 16, opRename: 8, opRename2: 16,
		opLink: 8} {
		req := append(append([]byte{}, head...), make([]byte, skip)...)
		req = append(req, hackName+"\x00rest\x00"...)
		hideName(req, op)
		if got := string(req[40+skip : 40+skip+len(hackName)]); got != hiddenName || trueName(got) != hackName {
			t.Errorf("op %d: %q", op, got)
		}
	}
	for _, name := range []string{hackName + "x\x00", ".go\x00", hackName} {
		req := append(append([]byte{}, head...), name...)
		hideName(req, opLookup)
		if string(req[40:]) != name {
			t.Errorf("%q became %q", name, req[40:])
		}
	}
	if trueName("a") != "a" || trueName("") != "" {
		t.Error("ordinary names change")
	}
}
