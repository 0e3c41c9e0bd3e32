package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// The rows of the report.
const (
	rowCreate       = "create + write 4 KB + close, us"
	rowStatFirst    = "stat, first, us"
	rowStatAgain    = "stat of a known file, us"
	rowReadFirst    = "open + read + close, first, us"
	rowReadAgain    = "open + read + close, again, us"
	rowListFirst    = "readdir of 1,000 with stat, first, us"
	rowListAgain    = "readdir of 1,000 with stat, again, us"
	rowRename       = "rename, us"
	rowUnlink       = "unlink, us"
	rowAppend       = "append 100 B, us"
	rowRandomWrite  = "random 4 KB write, us"
	rowPassAppend   = "passthrough: append 100 B, us"
	rowPassRandom   = "passthrough: random 4 KB write, us"
	rowPassCreate   = "passthrough: create + write 4 KB + close, us"
	rowFsync        = "write 4 KB + fsync, us"
	rowSeqWrite     = "sequential write, MB/s"
	rowSeqReadFirst = "sequential read, first, MB/s"
	rowSeqReadAgain = "sequential read, again, MB/s"
	rowClone        = "git clone of 1,000 files, ms"
	rowGitStatus    = "git status of it, ms"
	rowTar          = "tar of it, ms"
	rowRemove       = "rm -rf of it, ms"
	rowBuild        = "go build of this project, ms"
	rowFirstCommit  = "first commit of 10,000 4 KB files, ms (native: git add + commit)"
	rowSmallCommit  = "commit of 10 changed in 100,000, ms (native: git add + commit)"
	rowBigCommit    = "commit of a 1 GB file, ms (native: git add + commit)"

	rowHotRead     = "hot read of 4 KB, ms"
	rowWarmRead    = "warm read of 4 KB, ms"
	rowCommitFew   = "commit of 5 files by `emberfs sync`, ms"
	rowWriteIdle   = "append 100 B, no commit, ms"
	rowWriteCommit = "append 100 B beside a large commit, ms"
	rowMount       = "mount of an empty volume, ms"
	rowMemoryBusy  = "daemon RSS after these, MB"
	rowMemoryMany  = "daemon RSS with 100,000 files, MB"
	rowMemoryBig   = "daemon RSS after the commit of 1 GB, MB"
	rowBigEdit     = "commit of 4 KB changed in 1 GB, ms"
	rowBigEditSize = "growth of the repository by it, MB"
	rowDatabase    = "growth by 100 updated rows of a 131 MB SQLite database, MB"
	rowBigDir      = "commit of one change in a directory of 100,000, ms"
	rowBigDirSize  = "metadata in it, KB"
	rowColdByte    = "first byte of a cold file out of 200 packs, p99, ms"
	rowColdBig     = "1 GB read from cold, in times of the cached native read"
	rowMountMany   = "mount of 100,000 files of a local repository, ms (native: git clone)"
	rowMountTime   = "mount of 100,000 files of a local repository, ms"
	rowListLazy    = "first `ls -l` of a lazy directory of 1,000, ms"
	rowReadCold    = "first read of a small cold file, ms"
	rowFindFirst   = "find over 100,000 files, never listed before, ms"
	rowFind        = "find over 100,000 files, again, ms"
	rowMemoryWalk  = "daemon RSS after walking 100,000 restored files, MB"
	rowRelease     = "release of 10,000 files, ms"
	rowReleaseLeft = "warm after it, % of the bytes"

	rowCloseToCommit    = "close of a critical file of 100,000 to its commit, critical_delay 500 ms, ms"
	rowIdle             = "CPU of 10 s in which nothing happens, 100,000 files with rules, ms"
	rowCriticalRollback = "SQLite transactions (rollback journal) with a live commit each second, of those without"
	rowCriticalWAL      = "SQLite transactions (WAL) with a live commit each second, of those without"
	rowStorm            = "commits of a storm of small critical files, % of a core"
	rowStormFiles       = "files a second in it"

	rowPush     = "push of one file of 100,000 after 3,000 commits, %s, ms (native: git push)"
	rowPushOver = "push by http and ssh, over the server's own work, ms"

	rowFinalSmall = "final backup of 10,000 dirty 4 KB files, ms (native: git add + commit)"
	rowFinalBig   = "final backup of 100 MB in 100 files, ms (native: git add + commit)"
	rowBinary     = "size of the program, MB"
	rowStart      = "mount of an empty repository to its first listing, ms"
	rowBoot       = "mount of 100,000 files to the first bytes read, beyond that, ms"
	rowMemoryIdle = "daemon RSS of an empty volume, MB"
	rowEndNothing = "unmount of a session that changed nothing, ms"
	rowEndSynced  = "unmount right after a sync, ms"

	alone = ", by itself"   // follows the name of a row that is compared too
	peak  = ", at its peak" // follows the name of a memory row
)

// target is what a row is held to: its ratio to a reference, at most.
type target struct {
	row, to string
	most    float64
}

func targets() []target {
	t := []target{
		{rowCreate, "loopback", 0.65}, {rowReadAgain, "loopback", 0.9}, {rowListFirst, "loopback", 0.5},
		{rowRename, "loopback", 0.8}, {rowUnlink, "loopback", 0.8},
		{rowAppend, "loopback", 1}, {rowRandomWrite, "loopback", 1}, {rowSeqWrite, "loopback", 1},
		{rowSeqReadFirst, "loopback", 1}, {rowSeqReadAgain, "loopback", 1},
		{rowClone, "loopback", 0.8}, {rowRemove, "loopback", 0.8}, {rowTar, "loopback", 0.8},
		{rowPassAppend, "native", 1.3}, {rowPassRandom, "native", 1.3}, {rowStatAgain, "native", 1.5},
		{rowBuild, "native", 1.5}, {rowFirstCommit, "native", 0.4}, {rowSmallCommit, "native", 0.1},
		{rowBigCommit, "native", 0.3}, {rowMountMany, "native", 0.05}, {rowFindFirst, "native", 3},
		{rowFind, "native", 3},
		{rowFinalSmall, "native", 0.5}, {rowFinalBig, "native", 0.5},
	}
	for _, w := range pushWays() {
		if w.most > 0 {
			t = append(t, target{pushRow(w.name), "native", w.most})
		}
	}
	for _, row := range comparedRows() {
		if !strings.HasPrefix(row, "passthrough:") && row != rowMountMany && row != rowFindFirst && row != rowFind &&
			row != rowBuild && row != rowFirstCommit && row != rowSmallCommit && row != rowBigCommit &&
			row != rowFsync && row != rowFinalSmall && row != rowFinalBig && row != rowGitStatus &&
			!strings.HasPrefix(row, "push of") {
			t = append(t, target{row, "rclone", 0.3})
		}
	}
	return t
}

func comparedRows() []string {
	rows := []string{rowCreate, rowStatFirst, rowStatAgain, rowReadFirst, rowReadAgain, rowListFirst, rowListAgain,
		rowRename, rowUnlink, rowAppend, rowRandomWrite, rowPassAppend, rowPassRandom, rowPassCreate, rowFsync,
		rowSeqWrite, rowSeqReadFirst, rowSeqReadAgain, rowClone, rowGitStatus, rowTar, rowRemove, rowBuild,
		rowFirstCommit, rowSmallCommit, rowBigCommit, rowMountMany, rowFindFirst, rowFind,
		rowFinalSmall, rowFinalBig}
	for _, w := range pushWays() {
		rows = append(rows, pushRow(w.name))
	}
	return rows
}

// absolute are the promises in absolute terms: p50 and p99 at most; where the target is negative, p50 at least.
func absolute() []target {
	return []target{{rowHotRead, "", 1}, {rowWarmRead, "", 10}, {rowCommitFew, "", 100}, {rowWriteIdle, "", 0},
		{rowWriteCommit, "", 100}, {rowMount, "", 1000}, {rowMemoryBusy, "", 100}, {rowMemoryBusy + peak, "", 100},
		{rowMemoryMany, "", 100}, {rowMemoryMany + peak, "", 100},
		{rowMemoryBig, "", 100}, {rowMemoryBig + peak, "", 100}, {rowBigEdit, "", 100}, {rowBigEditSize, "", 0.5},
		{rowDatabase, "", 5}, {rowBigDir, "", 0}, {rowBigDirSize, "", 20}, {rowColdByte, "", 5}, {rowColdBig, "", 3.34},
		{rowMountTime, "", 200}, {rowListLazy, "", 100}, {rowReadCold, "", 5}, {rowRelease, "", 2000},
		{rowReleaseLeft, "", 1}, {rowMemoryWalk, "", 128}, {rowMemoryWalk + peak, "", 128},
		{rowCloseToCommit, "", 550}, {rowIdle, "", 100}, {rowCriticalRollback, "", -0.8}, {rowCriticalWAL, "", -0.8},
		{rowStorm, "", 50}, {rowStormFiles, "", 0},
		{rowPushOver, "", 15}, {rowFinalSmall + alone, "", 2000}, {rowFinalBig + alone, "", 2000},
		{rowBinary, "", 30}, {rowStart, "", 100}, {rowBoot, "", 300}, {rowMemoryIdle, "", 60},
		{rowMemoryIdle + peak, "", 0}, {rowEndNothing, "", 0}, {rowEndSynced, "", 0}}
}

// results collects figures by row and subject.
type results struct {
	figures map[string]map[string][]float64
	samples map[string][]float64
}

func newResults() *results {
	return &results{figures: map[string]map[string][]float64{}, samples: map[string][]float64{}}
}

func (r *results) add(row, kind string, v float64) {
	if r.figures[row] == nil {
		r.figures[row] = map[string][]float64{}
	}
	r.figures[row][kind] = append(r.figures[row][kind], v)
}

func (r *results) sample(row string, v float64) { r.samples[row] = append(r.samples[row], v) }

func quantile(v []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

func (r *results) median(row, kind string) (float64, bool) {
	v := r.figures[row][kind]
	if len(v) == 0 {
		return 0, false
	}
	return quantile(v, 0.5), true
}

// ratio is the time of emberfs in times of the reference; for rates the other way round, so that less is better
// throughout.
func (r *results) ratio(row, to string) (float64, bool) {
	ours, ok1 := r.median(row, "emberfs")
	ref, ok2 := r.median(row, to)
	if !ok1 || !ok2 || ref == 0 || ours == 0 {
		return 0, false
	}
	if strings.HasSuffix(row, "MB/s") {
		return ref / ours, true
	}
	return ours / ref, true
}

func (r *results) print(w io.Writer) {
	fmt.Fprintln(w, "Medians; ratios are times of emberfs in times of the reference (for rates the inverse), so less "+
		"is better.")
	fmt.Fprintln(w)
	fmt.Fprintln(w, "| work | native | loopback | rclone | emberfs | against | ratio | target | |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|")
	for _, row := range comparedRows() {
		if len(r.figures[row]) == 0 {
			continue
		}
		line := "| " + row
		for _, kind := range []string{"native", "loopback", "rclone", "emberfs"} {
			if v, ok := r.median(row, kind); ok {
				line += fmt.Sprintf(" | %.4g", v)
			} else {
				line += " | -"
			}
		}
		fmt.Fprintln(w, line+" |"+r.judge(row))
	}
	if len(r.samples) > 0 {
		r.printSamples(w)
	}
}

// judge gives the columns against, ratio, target and verdict of a row.
func (r *results) judge(row string) string {
	var against, ratios, most, verdict []string
	for _, t := range targets() {
		if t.row != row {
			continue
		}
		ratio, ok := r.ratio(row, t.to)
		if !ok {
			continue
		}
		against, ratios, most = append(against, t.to), append(ratios, fmt.Sprintf("%.2f", ratio)),
			append(most, fmt.Sprintf("%.2f", t.most))
		verdict = append(verdict, passOrShort(ratio <= t.most))
	}
	return " " + strings.Join([]string{strings.Join(against, ", "), strings.Join(ratios, ", "),
		strings.Join(most, ", "), strings.Join(verdict, ", ")}, " | ") + " |"
}

func passOrShort(ok bool) string {
	if ok {
		return "pass"
	}
	return "**short**"
}

func (r *results) printSamples(w io.Writer) {
	fmt.Fprintln(w)
	fmt.Fprintln(w, "| figure | p50 | p99 | worst | target | |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|")
	for _, t := range absolute() {
		v := r.samples[t.row]
		if len(v) == 0 {
			continue
		}
		limit, verdict := "", ""
		if t.most > 0 {
			limit, verdict = fmt.Sprintf("%.4g", t.most), passOrShort(quantile(v, 0.99) <= t.most)
		} else if t.most < 0 {
			limit, verdict = fmt.Sprintf("at least %.4g", -t.most), passOrShort(quantile(v, 0.5) >= -t.most)
		}
		fmt.Fprintf(w, "| %s | %.3g | %.3g | %.3g | %s | %s |\n", t.row, quantile(v, 0.5), quantile(v, 0.99),
			quantile(v, 1), limit, verdict)
	}
}
