package main

import (
	"bytes"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"
)

// op is an operation of one key between two times; end 0 is never.
func op(begin, end int64, in input, out output) porcupine.Operation {
	if end == 0 {
		end = math.MaxInt64
	}
	in.key += "k"
	return porcupine.Operation{Input: in, Call: begin, Output: out, Return: end}
}

func TestModel(t *testing.T) {
	put1, put2 := input{kind: put, value: 1}, input{kind: put, value: 2}
	read, remove := input{kind: get}, input{kind: del}
	sees := func(v uint16) output { return output{found: v != 0, value: v} }
	done, unknown := output{found: true}, output{unknown: true}
	tests := map[string]struct {
		history []porcupine.Operation
		want    porcupine.CheckResult
	}{
		"one after the other":      {[]porcupine.Operation{op(1, 2, put1, done), op(3, 4, read, sees(1)), op(5, 6, remove, done), op(7, 8, read, sees(0))}, porcupine.Ok},
		"lost write":               {[]porcupine.Operation{op(1, 2, put1, done), op(3, 4, read, sees(0))}, porcupine.Illegal},
		"stale read":               {[]porcupine.Operation{op(1, 2, put1, done), op(3, 4, put2, done), op(5, 6, read, sees(1))}, porcupine.Illegal},
		"read goes backwards":      {[]porcupine.Operation{op(1, 2, put1, done), op(3, 9, put2, done), op(4, 5, read, sees(2)), op(6, 7, read, sees(1))}, porcupine.Illegal},
		"removed and back":         {[]porcupine.Operation{op(1, 2, put1, done), op(3, 4, remove, done), op(5, 6, read, sees(1))}, porcupine.Illegal},
		"removed what was not":     {[]porcupine.Operation{op(1, 2, remove, done)}, porcupine.Illegal},
		"not found though there":   {[]porcupine.Operation{op(1, 2, put1, done), op(3, 4, remove, sees(0))}, porcupine.Illegal},
		"both orders of two":       {[]porcupine.Operation{op(1, 9, put1, done), op(1, 9, put2, done), op(10, 11, read, sees(1))}, porcupine.Ok},
		"unknown and done":         {[]porcupine.Operation{op(1, 2, put1, done), op(3, 0, put2, unknown), op(5, 6, read, sees(2))}, porcupine.Ok},
		"unknown and done later":   {[]porcupine.Operation{op(1, 2, put1, done), op(3, 0, put2, unknown), op(5, 6, read, sees(1)), op(7, 8, read, sees(2))}, porcupine.Ok},
		"unknown and never done":   {[]porcupine.Operation{op(1, 2, put1, done), op(3, 0, remove, unknown), op(5, 6, read, sees(1))}, porcupine.Ok},
		"unknown, done and undone": {[]porcupine.Operation{op(1, 2, put1, done), op(3, 0, put2, unknown), op(5, 6, read, sees(2)), op(7, 8, read, sees(1))}, porcupine.Illegal},
		"other keys do not matter": {[]porcupine.Operation{op(1, 2, put1, done), op(3, 4, input{kind: get, key: "x"}, sees(0))}, porcupine.Ok},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := porcupine.CheckOperationsTimeout(registry, tt.history, 0); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	tests := map[string]struct {
		args []string
		want string // part of the message; "" for none
	}{
		"defaults":        {nil, ""},
		"one fault":       {[]string{"-faults", "kill-leader,kill-all", "-agents", "1"}, ""},
		"unknown fault":   {[]string{"-faults", "flood"}, `"flood" is not one of`},
		"too few agents":  {[]string{"-faults", "lost-disk", "-agents", "3"}, "is not one of"},
		"no agents":       {[]string{"-agents", "0"}, "must be 1 to 7"},
		"too many agents": {[]string{"-agents", "8"}, "must be 1 to 7"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o, err := parseOptions(tt.args, io.Discard)
			if tt.want == "" && (err != nil || len(o.faults) == 0) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("faults %v, err %v, want %q", o.faults, err, tt.want)
			}
		})
	}
	if one, five := faultNames(1), faultNames(5); slices.Contains(one, "leader-alone") || len(five) != len(faultsByName) {
		t.Errorf("faults for one agent: %v, for five: %v", one, five)
	}
}

// One agent, killed at random moments, loses nothing that it acknowledged.
func TestOneAgent(t *testing.T) {
	if testing.Short() {
		t.Skip("builds an agent and runs it for some seconds")
	}
	dir := t.TempDir()
	for name, pkg := range map[string]string{"fluid-agent": "../../agent/cmd/fluid-agent", "nemesis": "."} {
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, name), pkg).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "nemesis"), "-agent", filepath.Join(dir, "fluid-agent"),
		"-agents", "1", "-faults", "kill-leader", "-duration", "5s", "-seed", "3", "-dir", filepath.Join(dir, "run"))
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if strings.Contains(out.String(), "cannot make namespaces") {
		t.Skip("this machine does not let us make namespaces")
	}
	if err != nil || !strings.Contains(out.String(), "the history is linearizable") || !strings.Contains(out.String(), "kill -9 node1") {
		log, _ := os.ReadFile(filepath.Join(dir, "run", "node1.log"))
		t.Errorf("%v\n%s\n%s", err, out.String(), log)
	}
}
