// Package build_test holds what is true of the project as a whole: its layout,
// its layering, and that every file a user is told to use works.
package build_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/fluid-sd/fluid"

// goList returns the transitive imports of each package that pattern matches.
func goList(t *testing.T, pattern string) map[string][]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}}{{range .Deps}} {{.}}{{end}}`, pattern)
	cmd.Dir = ".."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v", pattern, err)
	}
	deps := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		deps[fields[0]] = fields[1:]
	}
	if len(deps) == 0 {
		t.Fatalf("go list %s: no package", pattern)
	}
	return deps
}

// The linter checks direct imports; this checks what they bring along.
func TestLayering(t *testing.T) {
	rules := []struct {
		name, pattern string
		forbidden     []string // import path, or a tree ending in "/..."
	}{
		{"the plugin knows nothing of the agent", "./plugin/...", []string{module + "/agent/...", "github.com/hashicorp/raft/..."}},
		{"the agent runs without CoreDNS", "./agent/...", []string{"github.com/coredns/...", module + "/plugin", module + "/plugin/table"}},
		{"record uses the standard library", "./plugin/record", []string{"github.com/...", "google.golang.org/..."}},
		{"the catalog is strange to feed, mesh and table", "./plugin/catalog/...", []string{
			module + "/plugin/feed/...", module + "/plugin/mesh/...", module + "/plugin/table", "google.golang.org/...", "github.com/hashicorp/...",
		}},
		{"the table answers without a network", "./plugin/table", []string{"google.golang.org/grpc/...", "github.com/hashicorp/memberlist"}},
	}
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			for pkg, deps := range goList(t, rule.pattern) {
				for _, dep := range deps {
					if slices.ContainsFunc(rule.forbidden, func(f string) bool { return matches(f, dep) }) {
						t.Errorf("%s imports %s", pkg, dep)
					}
				}
			}
		})
	}
}

func matches(pattern, path string) bool {
	tree, ok := strings.CutSuffix(pattern, "/...")
	return path == tree || ok && strings.HasPrefix(path, tree+"/")
}

func TestTopLevel(t *testing.T) {
	want := []string{"Corefile.example", "Makefile", "README.md", "agent", "build", "go.mod", "go.sum", "plugin"}
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			got = append(got, e.Name())
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("top level: got %v, want %v", got, want)
	}
}

// Packages named after what they are not say nothing.
func TestPackageNames(t *testing.T) {
	empty := []string{"internal", "pkg", "common", "util", "utils", "types", "mock", "mocks", "helpers"}
	for _, dir := range []string{"../plugin", "../agent", "../build"} {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() && slices.Contains(empty, d.Name()) {
				t.Errorf("%s: name the package by what it provides", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
