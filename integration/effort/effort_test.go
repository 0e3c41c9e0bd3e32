package effort

import (
	"slices"
	"testing"
	"time"
)

func TestEffort(t *testing.T) {
	lift := func() {
		for _, name := range []string{soakVar, seedVar, roundsVar, forVar} {
			t.Setenv(name, "")
		}
	}
	lift()
	if n, d := Count(t, 3, 300), Time(t, time.Second, time.Minute); n != 3 || d != time.Second || Soaking() {
		t.Errorf("in the suite: %d rounds, %v, soaking %v", n, d, Soaking())
	}
	if s := Seeds(t, 2, 200); !slices.Equal(s, []int64{1, 2}) {
		t.Errorf("the suite's seeds are %v", s)
	}
	t.Setenv(soakVar, "1")
	if n, d := Count(t, 3, 300), Time(t, time.Second, time.Minute); n != 300 || d != time.Minute || !Soaking() {
		t.Errorf("the long form: %d rounds, %v", n, d)
	}
	if a, b := Seed(t), Seed(t); a == b {
		t.Errorf("two long forms have the same seed %d", a)
	}
	t.Setenv(seedVar, "42")
	t.Setenv(roundsVar, "7")
	t.Setenv(forVar, "2m")
	if n, d, s := Count(t, 3, 300), Time(t, time.Second, time.Minute), Seeds(t, 1, 2); n != 7 || d != 2*time.Minute ||
		len(s) != 7 || s[0] != 42 || s[6] != 48 {
		t.Errorf("as asked for: %d rounds, %v, seeds %v", n, d, s)
	}
}
