package backup

import (
	"fmt"
	"testing"
	"time"

	"emberfs/backup/coldtest"
)

type reported struct {
	what               string
	objects, of, bytes int64
}

// TestFetchProgress checks that a fetch says how many objects and bytes have come, and in the end that nothing is under
// way.
func TestFetchProgress(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	one := newVolume(t, Options{Source: remote, MachineID: "one"})
	f := coldtest.NewDir(0o755)
	f.Text("a", "a")
	one.CommitTree(f, nil)
	one.MustPush()
	var list []reported
	report := func(what string, objects, of, bytes int64) {
		list = append(list, reported{what, objects, of, bytes})
	}
	two := newVolume(t, Options{Source: remote, MachineID: "two", Progress: report})
	two.MustFetch()
	const files = 300
	for i := range files {
		f.Text(fmt.Sprint("f", i), string(coldtest.Noise(uint64(i), 1000)))
	}
	one.CommitTree(f, nil)
	one.MustPush()
	list = nil
	two.MustFetch()
	if len(list) < 3 || list[len(list)-1] != (reported{}) {
		t.Fatalf("reported %+v", list)
	}
	last := list[len(list)-2]
	if last.what != "fetch" || last.objects != last.of || last.of < files || last.bytes < files*1000 {
		t.Errorf("the last figures are %+v", last)
	}
	for i, r := range list[1 : len(list)-1] {
		if r.what != "fetch" || r.objects < list[i].objects || r.bytes < list[i].bytes || r.of != last.of && r.of != 0 {
			t.Errorf("%+v after %+v", r, list[i])
		}
	}
	list = nil
	two.MustFetch() // nothing came
	if len(list) != 0 {
		t.Errorf("reported %+v of nothing", list)
	}
}

// TestMeter checks that a meter reports at most every meterEvery, and costs nothing where nobody listens.
func TestMeter(t *testing.T) {
	var list []reported
	m := newMeter(func(what string, objects, of, bytes int64) {
		list = append(list, reported{what, objects, of, bytes})
	}, "push")
	m.end()
	began := time.Now()
	for i := range int64(1000) {
		m.at(i, 1000, i*10)
	}
	most := int(time.Since(began)/meterEvery) + 1
	if len(list) == 0 || len(list) > most || list[0] != (reported{"push", 0, 1000, 0}) {
		t.Errorf("%d reports, at most %d: %+v", len(list), most, list)
	}
	m.end()
	if end := list[len(list)-2:]; end[0] != (reported{"push", 999, 1000, 9990}) || end[1] != (reported{}) {
		t.Errorf("in the end %+v", end)
	}
	newMeter(nil, "push").at(1, 2, 3)
}
