package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of /proc/PID/stat: Linux shows 100 ticks a second to user
// space whatever the kernel's own tick is.
const clockTick = 10 * time.Millisecond

// cpuTime is processor time as the kernel accounts it to processes. The sum of
// both is exact to a tick; the kernel estimates how it divides.
type cpuTime struct {
	User   time.Duration `json:"user"`
	System time.Duration `json:"system"`
}

func (c cpuTime) total() time.Duration { return c.User + c.System }

func (c cpuTime) add(d cpuTime) cpuTime { return cpuTime{c.User + d.User, c.System + d.System} }

func (c cpuTime) sub(d cpuTime) cpuTime { return cpuTime{c.User - d.User, c.System - d.System} }

// procStat is what cpuTime needs from /proc/PID/stat.
type procStat struct {
	pid, parent int
	cpu         cpuTime // of all its threads, ended ones included, and of the children it has waited for
}

// parseStat reads /proc/PID/stat (proc_pid_stat(5)). The name of the program, in
// parentheses, may itself hold spaces and parentheses.
func parseStat(line string) (procStat, error) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return procStat{}, fmt.Errorf("stat: no program name in %q", line)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line[:open]))
	if err != nil {
		return procStat{}, fmt.Errorf("stat: %w", err)
	}
	rest := strings.Fields(line[end+1:]) // from field 3, the state
	if len(rest) < 15 {
		return procStat{}, fmt.Errorf("stat: %d fields in %q", len(rest)+2, line)
	}
	var n [5]int64
	for i, field := range []int{4, 14, 15, 16, 17} { // ppid utime stime cutime cstime
		if n[i], err = strconv.ParseInt(rest[field-3], 10, 64); err != nil {
			return procStat{}, fmt.Errorf("stat: field %d: %w", field, err)
		}
	}
	return procStat{
		pid:    pid,
		parent: int(n[0]),
		cpu:    cpuTime{User: time.Duration(n[1]+n[3]) * clockTick, System: time.Duration(n[2]+n[4]) * clockTick},
	}, nil
}

// processTime returns the time that the process root and its descendants have
// used since they started.
func processTime(root int) (cpuTime, error) {
	all, err := processTree(root)
	var sum cpuTime
	for _, st := range all {
		sum = sum.add(st.cpu)
	}
	return sum, err
}

// residentSize returns the memory that root and its descendants hold, in bytes.
// What several processes share is divided among them (Pss in
// proc_pid_smaps(5)), so that it counts once.
func residentSize(root int) (int64, error) {
	all, err := processTree(root)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, st := range all {
		text, err := readText(fmt.Sprintf("/proc/%d/smaps_rollup", st.pid))
		if err != nil {
			return 0, err
		}
		kilobytes, err := leadingInt(firstField(text, "Pss"))
		if err != nil {
			return 0, fmt.Errorf("smaps: %w", err)
		}
		sum += kilobytes << 10
	}
	return sum, nil
}

// processTree returns root and its descendants.
func processTree(root int) ([]procStat, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	byPID := map[int]procStat{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended between the two calls
		}
		st, err := parseStat(string(text))
		if err != nil {
			return nil, err
		}
		byPID[st.pid] = st
	}
	return descendants(byPID, root)
}

// descendants picks root and its descendants.
func descendants(byPID map[int]procStat, root int) ([]procStat, error) {
	if _, ok := byPID[root]; !ok {
		return nil, fmt.Errorf("process %d has ended", root)
	}
	var tree []procStat
	for pid, st := range byPID {
		for up, hops := pid, 0; up != 0 && hops < len(byPID); hops++ {
			if up == root {
				tree = append(tree, st)
				break
			}
			up = byPID[up].parent
		}
	}
	return tree, nil
}

// machine describes where a run took place.
type machine struct {
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// firstField returns the value of the first line of text that starts with key,
// as in /proc/cpuinfo.
func firstField(text, key string) string {
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// readText returns the trimmed text of a file, nothing if it does not exist.
func readText(path string) (string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(text)), err
}
