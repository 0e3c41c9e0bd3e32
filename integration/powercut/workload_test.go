package powercut

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"
	"time"

	"emberfs/integration/effort"
)

// TestJudgeAllowsWhatHappened: whatever a program does at random, the tree as it left it after each operation is one
// that the judge allows, whichever of it is durable, and comes to an end with.
func TestJudgeAllowsWhatHappened(t *testing.T) {
	const ops = 250
	for _, seed := range effort.Seeds(t, 2, 200) {
		rnd := rand.New(rand.NewSource(seed))
		whole := &History{Seed: seed, Dirs: []string{"d", "d/e"},
			Files: map[string][]byte{"old": []byte("what was there before")}}
		for i := range ops {
			whole.Add(whole.Next(rnd))
			whole.Events = append(whole.Events, Event{Ack: true, At: time.Duration(i) * time.Second})
			if rnd.Intn(100) == 0 {
				whole.Events = append(whole.Events, Event{Op: i + 1, At: time.Duration(i) * time.Second})
			}
		}
		for range 5 {
			n := rnd.Intn(ops + 1)
			seen := 0
			for acked := 0; acked < n; seen++ {
				if whole.Events[seen].Ack {
					acked++
				}
			}
			for _, age := range []time.Duration{time.Hour, 10 * time.Second} {
				if bad := whole.Judge(seen, age, whole.treeAfter(n)); bad != nil {
					t.Fatalf("seed %d, after %d operations, age %v: %q", seed, n, age, bad)
				}
			}
		}
	}
}

// treeAfter is the tree after the first n operations.
func (h *History) treeAfter(n int) map[string]Node {
	part := &History{Seed: h.Seed, Dirs: h.Dirs, Files: h.Files, Ops: slices.Clip(h.Ops[:n])}
	tree := map[string]Node{}
	for _, p := range part.Paths(true) {
		tree[p] = Node{Dir: true}
	}
	for _, p := range part.Paths(false) {
		tree[p] = Node{Data: part.content(part.live[p], n)}
	}
	return tree
}

func TestTreeAfter(t *testing.T) {
	h := acked(Op{Kind: Create, Path: "f", Len: 3}, Op{Kind: Rename, Path: "d", To: "e"}, Op{Kind: Unlink, Path: "f"})
	for n, want := range []string{"[d old]", "[d f old]", "[e f old]", "[e old]"} {
		var got []string
		for p := range h.treeAfter(n) {
			got = append(got, p)
		}
		if slices.Sort(got); fmt.Sprint(got) != want {
			t.Errorf("after %d operations: %v, want %s", n, got, want)
		}
	}
}
