package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// job is one thing to run: tests of a package by a pattern, or a fuzz target.
type job struct {
	name  string
	pkg   string // its directory
	tests string // pattern for -test.run
	fuzz  string // fuzz target in place of tests
	raced bool   // with the race detector
	env   []string
	limit time.Duration // after which it has failed; a job takes far less

	fuzzTime time.Duration
}

// testJobs are the tests whose long form is asked for by integration/effort, and the whole suites in an order by
// chance.
func testJobs() []job {
	const pkg = "integration"
	jobs := []job{
		{name: "unit/backup", pkg: "backup", tests: ".", raced: true, limit: 30 * time.Minute},
		{name: "unit/fsck", pkg: "backup/fsck", tests: ".", raced: true, limit: 15 * time.Minute},
		{name: "unit/format", pkg: "backup/format", tests: ".", raced: true, limit: 15 * time.Minute},
		{name: "unit/log", pkg: "backup/log", tests: ".", raced: true, limit: 15 * time.Minute},
		{name: "unit/odb", pkg: "backup/odb", tests: ".", raced: true, limit: 30 * time.Minute},
		{name: "unit/wire", pkg: "backup/wire", tests: ".", raced: true, limit: 15 * time.Minute},
		{name: "unit/tiers", pkg: "tiers", tests: ".", raced: true, limit: 30 * time.Minute},
		{name: "unit/fs", pkg: "fs", tests: ".", raced: true, limit: 15 * time.Minute},
		{name: "unit/cmd", pkg: "cmd/emberfs", tests: ".", raced: true, limit: 15 * time.Minute},
		{name: "unit/gitserver", pkg: "integration/gitserver", tests: ".", raced: true, limit: 15 * time.Minute},
		{name: "unit/powercut", pkg: "integration/powercut", tests: ".", limit: 15 * time.Minute},

		{name: "churn/alone", pkg: pkg, tests: "^TestChurn$/^alone$", limit: 40 * time.Minute},
		{name: "churn/source", pkg: pkg, tests: "^TestChurn$/^with_a_source$", limit: 40 * time.Minute},
		{name: "churn/raced", pkg: pkg, tests: "^TestChurn$/^with_a_source$", raced: true,
			env: []string{"EMBERFS_ROUNDS=100"}, limit: 40 * time.Minute},

		{name: "kill/writes", pkg: pkg, tests: "^TestKillUnderWrites$", limit: 30 * time.Minute},
		{name: "kill/restore", pkg: pkg, tests: "^TestKillDuringRestore$", limit: 20 * time.Minute},
		{name: "kill/listing", pkg: pkg, tests: "^(TestKilledWhileListing|TestKilledWhileReleasing)$",
			limit: 30 * time.Minute},
		{name: "kill/critical", pkg: pkg, tests: "^TestCriticalKilled$", limit: 30 * time.Minute},
		{name: "kill/machines", pkg: pkg, tests: "^TestMachinesKilled$", limit: 60 * time.Minute},
		{name: "kill/budget", pkg: pkg, tests: "^TestBudgetKilledAtRandom$", limit: 70 * time.Minute},
		{name: "kill/rules", pkg: pkg, tests: "^TestOwnRulesKilled$", limit: 20 * time.Minute},

		{name: "git/commits", pkg: pkg, tests: "^TestGitBesideCommits$", limit: 30 * time.Minute},
		{name: "git/readers", pkg: pkg, tests: "^TestHistoryBesideWriter$", limit: 20 * time.Minute},

		{name: "database/sqlite", pkg: pkg, tests: "^TestCommitsOfSQLite$", limit: 20 * time.Minute},
		{name: "database/postgres", pkg: pkg, tests: "^TestCommitsOfPostgres$", limit: 30 * time.Minute},
		{name: "database/critical-sqlite", pkg: pkg, tests: "^TestCriticalSQLite$", limit: 20 * time.Minute},
		{name: "database/critical-postgres", pkg: pkg, tests: "^TestCriticalPostgres$", limit: 30 * time.Minute},
		{name: "database/order", pkg: pkg, tests: "^(TestCommitKeepsOrder|TestCriticalOrder)$",
			limit: 20 * time.Minute},

		{name: "net/chaos-ssh", pkg: pkg, tests: "^TestNetChaos$/^ssh$", limit: 30 * time.Minute},
		{name: "net/chaos-http", pkg: pkg, tests: "^TestNetChaos$/^http$", limit: 30 * time.Minute},
		{name: "net/server-killed", pkg: pkg, tests: "^TestNetServerKilled$", limit: 30 * time.Minute},
		{name: "net/killed", pkg: pkg, tests: "^TestNetKilled$", limit: 30 * time.Minute},
		{name: "net/busy", pkg: pkg, tests: "^(TestNetBusyServer|TestNetRetryAfter)$", limit: 20 * time.Minute},
		{name: "net/fleet-ssh", pkg: pkg, tests: "^TestNetFleetSSH$", limit: 20 * time.Minute},
		{name: "net/fleet-http", pkg: pkg, tests: "^TestNetFleetHTTP$", limit: 20 * time.Minute},

		{name: "size/memory", pkg: pkg, tests: "^TestMemoryLimit$", limit: 20 * time.Minute},
		{name: "size/inodes", pkg: pkg, tests: "^TestInodeTable$", limit: 20 * time.Minute},
		{name: "size/lazy", pkg: pkg, tests: "^TestLazySizes$", limit: 20 * time.Minute},
		{name: "program/build", pkg: pkg, tests: "^(TestProgramGoBuild|TestPassthroughPrograms)$",
			limit: 20 * time.Minute},
		{name: "program/odd-tree", pkg: pkg, tests: "^(TestProgramCopies|TestRestoreOddTree|TestHistoryOddTree)$",
			limit: 30 * time.Minute},
		{name: "program/stress", pkg: pkg, tests: "^TestProgramStress$", raced: true, limit: 30 * time.Minute},
		{name: "program/fio", pkg: pkg, tests: "^TestReleaseUnderFio$", limit: 20 * time.Minute},
		{name: "program/fsx", pkg: pkg, tests: "^TestReleaseUnderExerciser$", limit: 20 * time.Minute},
		{name: "posix/raced", pkg: pkg, tests: "^TestPosixMatrix$", raced: true, limit: 30 * time.Minute},
		// The suite as scripts/test has it, but in an order by chance.
		{name: "suite", pkg: pkg, tests: ".", env: []string{"EMBERFS_SOAK=", "EMBERFS_SEED="}, limit: 60 * time.Minute},
	}
	for _, fs := range []string{"Ext4", "XFS", "Btrfs"} {
		jobs = append(jobs, job{name: "powercut/" + strings.ToLower(fs), pkg: pkg, tests: "^TestPowerCut" + fs + "$",
			limit: 30 * time.Minute})
	}
	for _, call := range []string{"fsync", "rename", "unlink", "openat", "write", "fsetxattr", "connect"} {
		jobs = append(jobs, job{name: "strace/" + call, pkg: pkg, tests: `^TestKillAtEachStepOfCommit$/^` + call + `\+`,
			limit: 30 * time.Minute})
	}
	for _, action := range []string{"kill", "EIO", "ENOSPC"} {
		jobs = append(jobs, job{name: "failpoints/" + strings.ToLower(action), pkg: pkg, tests: "^TestFailpoints$/^" +
			action + "$", limit: 30 * time.Minute})
	}
	return jobs
}

// fuzzJobs are the fuzz targets of the project.
func fuzzJobs(module string, length time.Duration) (jobs []job, err error) {
	err = filepath.WalkDir(module, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, "_test.go") {
			return err
		}
		names, err := functions(file, "Fuzz")
		if err != nil {
			return err
		}
		pkg, err := filepath.Rel(module, filepath.Dir(file))
		if err != nil {
			return err
		}
		for name := range names {
			jobs = append(jobs, job{name: "fuzz/" + pkg + "." + name, pkg: pkg, fuzz: name, fuzzTime: length,
				limit: length + 5*time.Minute})
		}
		return nil
	})
	slices.SortFunc(jobs, func(a, b job) int { return cmp.Compare(a.name, b.name) }) // a seed stands for an order
	if err == nil && len(jobs) == 0 {
		err = fmt.Errorf("no fuzz target below %s", module)
	}
	return jobs, err
}

// functions are the functions of a file whose names begin so, and the text of each.
func functions(file, prefix string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, d := range parsed.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, prefix) {
			found[f.Name.Name] = string(text[set.Position(f.Pos()).Offset:set.Position(f.End()).Offset])
		}
	}
	return found, nil
}

// binary names the test binary that a job runs.
func (j job) binary() string {
	name := strings.ReplaceAll(j.pkg, "/", "_")
	switch {
	case j.fuzz != "":
		name += ".fuzz"
	case j.raced:
		name += ".race"
	}
	return name + ".test"
}

// build are the arguments of go that make the binary.
func (j job) build(to string) []string {
	tags := "slow"
	if j.raced {
		tags += ",lockorder"
	}
	args := []string{"test", "-c", "-tags", tags, "-o", to}
	switch {
	case j.fuzz != "":
		args = append(args, "-fuzz=^Fuzz") // instruments the package for all its targets
	case j.raced:
		args = append(args, "-race")
	}
	return append(args, "./"+j.pkg)
}

// args are the arguments of the test binary.
func (j job) args(seed int64, cache string) []string {
	args := []string{"-test.timeout=" + j.limit.String(), "-test.count=1"}
	if j.fuzz != "" {
		return append(args, "-test.run=^$", "-test.fuzz=^"+j.fuzz+"$", "-test.fuzztime="+j.fuzzTime.String(),
			"-test.parallel=1", "-test.fuzzcachedir="+cache)
	}
	args = append(args, "-test.v", "-test.run="+j.tests)
	if j.tests == "." {
		args = append(args, fmt.Sprint("-test.shuffle=", seed))
	}
	return args
}

// command is what a user would type to run the same tests by hand.
func (j job) command() string {
	if j.fuzz != "" {
		return fmt.Sprintf("go test -run '^$' -fuzz '^%s$' ./%s", j.fuzz, j.pkg)
	}
	race := ""
	if j.raced {
		race = "-race "
	}
	return fmt.Sprintf("EMBERFS_SOAK=1 go test %s-tags slow -run '%s' ./%s", race, j.tests, j.pkg)
}
