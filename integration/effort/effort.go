// Package effort says how much a test does: little in the suite, so that everybody runs it often, and a lot in
// scripts/soak.
//
// A test whose length is a matter of choice asks here and nowhere else, so one set of variables works for all of them:
//
//	EMBERFS_SOAK=1    the long form
//	EMBERFS_SEED=N    the seed of what is random; without it 1 in the suite and another one each time in the long form
//	EMBERFS_ROUNDS=N  so many rounds, cuts, commits or steps, whatever the test counts
//	EMBERFS_FOR=1m    so long, where the test counts time
//
// scripts/soak sets the first two. The others are for whoever looks into one test.
package effort

import (
	"os"
	"strconv"
	"testing"
	"time"
)

const (
	soakVar   = "EMBERFS_SOAK"
	seedVar   = "EMBERFS_SEED"
	roundsVar = "EMBERFS_ROUNDS"
	forVar    = "EMBERFS_FOR"
)

// Soaking says that the long forms are wanted.
func Soaking() bool { return os.Getenv(soakVar) != "" }

// Count is how many rounds a test makes: the first number in the suite, the second in the long form.
func Count(t testing.TB, suite, soak int) int {
	t.Helper()
	if s := os.Getenv(roundsVar); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("%s=%s: want a number above 0", roundsVar, s)
		}
		return n
	}
	if Soaking() {
		return soak
	}
	return suite
}

// Time is for how long a test goes on: the first in the suite, the second in the long form.
func Time(t testing.TB, suite, soak time.Duration) time.Duration {
	t.Helper()
	if s := os.Getenv(forVar); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			t.Fatalf("%s=%s: want a duration such as 90s", forVar, s)
		}
		return d
	}
	if Soaking() {
		return soak
	}
	return suite
}

// Seed is what a test begins its random numbers with. The test's log says it, and how to have it again. The suite has
// one seed, so that it does the same for everybody; what another seed finds is for the soak.
func Seed(t testing.TB) int64 {
	t.Helper()
	seed := int64(1)
	if s := os.Getenv(seedVar); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Fatalf("%s=%s: want a whole number", seedVar, s)
		}
		seed = n
	} else if Soaking() {
		seed = time.Now().UnixNano() % 1e9
	}
	t.Logf("%s=%d", seedVar, seed)
	return seed
}

// Seeds are the seeds of a test that runs once for each: so many in the suite, so many in the long form.
func Seeds(t testing.TB, suite, soak int) []int64 {
	t.Helper()
	first := Seed(t)
	list := make([]int64, Count(t, suite, soak))
	for i := range list {
		list[i] = first + int64(i)
	}
	return list
}
