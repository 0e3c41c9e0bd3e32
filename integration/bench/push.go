package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// pushWays are the names that BenchmarkPush of package backup has for its ways to push, and what a push may take of the
// time of git's; 0: it says nothing.
func pushWays() []struct {
	name string
	most float64
} {
	return []struct {
		name string
		most float64
	}{{"path", 1}, {"http", 0.85}, {"ssh", 0.5}, {"http+20ms", 0}, {"ssh+20ms", 0.4}, {"http+10000refs", 0.8},
		{"ssh+10000refs", 0}}
}

func pushRow(way string) string { return fmt.Sprintf(rowPush, way) }

// pushes measures pushes beside git's, by the benchmark of package backup, which has real servers and its own rounds.
func (b *bench) pushes() error {
	times := strconv.Itoa(3 * b.size(9, 3)) // ours, git's and the server's own work take turns
	cmd := exec.CommandContext(b.ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkPush$", "-benchtime", times+"x",
		"-timeout", "30m", "./backup")
	cmd.Dir, cmd.Stderr = b.module, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go test -bench BenchmarkPush: %w\n%s", err, out)
	}
	result := regexp.MustCompile(`^BenchmarkPush/(\S+)-\d+\s`)
	figure := regexp.MustCompile(`([0-9.]+) (ours|git-push|server)-ms`)
	for line := range strings.Lines(string(out)) {
		name := result.FindStringSubmatch(line)
		if name == nil {
			continue
		}
		way := name[1]
		at := map[string]float64{}
		for _, m := range figure.FindAllStringSubmatch(line, -1) {
			if at[m[2]], err = strconv.ParseFloat(m[1], 64); err != nil {
				return err
			}
		}
		if len(at) == 3 {
			b.results.add(pushRow(way), "native", at["git-push"])
			b.results.add(pushRow(way), "emberfs", at["ours"])
			if way == "http" || way == "ssh" {
				b.results.sample(rowPushOver, at["ours"]-at["server"])
			}
		}
	}
	return nil
}
