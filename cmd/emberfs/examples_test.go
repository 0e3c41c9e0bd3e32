package main

import (
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestExamples reads the settings in the sample of user data for cloud-init, and the command lines of the sample units.
func TestExamples(t *testing.T) {
	const scripts = "../../scripts"
	var data struct {
		Files []struct{ Path, Permissions, Content string } `yaml:"write_files"`
		Run   []string                                      `yaml:"runcmd"`
	}
	noError(t, yaml.Unmarshal([]byte(document(t, filepath.Join(scripts, "examples/cloud-init.yaml"))), &data))
	settings := ""
	for _, f := range data.Files {
		switch {
		case f.Path == "/etc/emberfs/mnt-work.yaml":
			settings = f.Content
		case strings.HasSuffix(f.Path, "/token") && f.Permissions != "0600":
			t.Errorf("%s has mode %s", f.Path, f.Permissions)
		}
	}
	file := write(t, t.TempDir(), "mnt-work.yaml", settings)
	c, err := resolve("mount", layer{"config": {value: file}}, nil, nil)
	if err != nil || c.Source == "" || c.Rules == nil {
		t.Fatalf("%+v, %v", c, err)
	}
	if !strings.Contains(strings.Join(data.Run, "\n"), "emberfs@mnt-work.service") {
		t.Errorf("the service is not started: %q", data.Run)
	}

	unit := document(t, filepath.Join(scripts, "emberfs@.service"))
	_, line, _ := strings.Cut(unit, "\nExecStart=/usr/local/bin/emberfs ")
	line, _, _ = strings.Cut(line, "\n")
	cmd, args, err := rootCommand(world{}).Find(strings.Fields(line))
	if err == nil {
		err = cmd.ParseFlags(args)
	}
	if err != nil || cmd.Name() != "mount" || len(cmd.Flags().Args()) != 1 || !cmd.Flags().Changed("foreground") {
		t.Errorf("%q is no command line: %v", line, err)
	}
}
