package fluid

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"
)

const exampleZone = `example.org. 60 IN SOA ns.example.org. hostmaster.example.org. 1 60 60 60 60
example.org. 60 IN NS ns.example.org.
ns.example.org. 60 IN A 192.0.2.1
`

// TestReadme starts CoreDNS with every Corefile of README.md, and checks that
// it has the sections that CoreDNS asks of a plugin's manual, every option and
// every metric.
func TestReadme(t *testing.T) {
	data, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	at := -1
	for _, section := range []string{"# fluid\n", "## Name\n", "## Description\n", "## Syntax\n", "## Metrics\n", "## Ready\n", "## Metadata\n", "## Examples\n", "## See Also\n"} {
		i := strings.Index(text, "\n"+section)
		if i < 0 && !strings.HasPrefix(text, section) || i < at {
			t.Errorf("section %q is missing or misplaced", strings.TrimSpace(section))
		}
		at = i
	}
	for name := range blockOptions {
		if !strings.Contains(text, "\n    "+name) || !strings.Contains(text, "`"+name+"`") {
			t.Errorf("option %s is not documented", name)
		}
	}
	for name := range processOptions {
		if !strings.Contains(text, "\n    "+name) || !strings.Contains(text, "`"+name+"`") {
			t.Errorf("option %s is not documented", name)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "example.org.zone"), []byte(exampleZone), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	defer func(port string) { dnsserver.Port = port }(dnsserver.Port)
	dnsserver.Port = "0"
	snippets := corefiles(text)
	if len(snippets) < 3 {
		t.Fatalf("found %d Corefiles", len(snippets))
	}
	for _, snippet := range snippets {
		t.Run(strings.Fields(snippet)[0], func(t *testing.T) {
			// Nobody is there to wait for, and fixed ports may be taken.
			started := strings.ReplaceAll(snippet, "localhost:9153", "localhost:0")
			started = strings.ReplaceAll(started, "localhost:8181", "localhost:0")
			serve(t, quick(started), nil)
		})
	}
}

// quick makes a Corefile start without waiting for an agent.
func quick(corefile string) string {
	if strings.Contains(corefile, "fluid {\n") {
		return strings.Replace(corefile, "fluid {\n", "fluid {\n startup_timeout 0s\n", 1)
	}
	return strings.Replace(corefile, " fluid\n", " fluid {\n startup_timeout 0s\n }\n", 1)
}

func corefiles(text string) []string {
	var out []string
	for {
		_, rest, ok := strings.Cut(text, "~~~ corefile\n")
		if !ok {
			return out
		}
		snippet, after, _ := strings.Cut(rest, "~~~\n")
		out = append(out, snippet)
		text = after
	}
}

// TestCorefileExample starts the Corefile that people are told to start with.
func TestCorefileExample(t *testing.T) {
	data, err := os.ReadFile("../Corefile.example")
	if err != nil {
		t.Fatal(err)
	}
	a := newAgent(t)
	a.commit(instance(t, "checkout 10.0.0.9"))
	t.Setenv("FLUID_SOCKET", a.socket)
	text := string(data)
	for _, port := range []string{":1053", ":9153", ":8181"} {
		if !strings.Contains(text, port) {
			t.Errorf("port %s is missing", port)
		}
		text = strings.ReplaceAll(text, port, ":0")
	}
	s := serve(t, text, a)
	s.caughtUp()
	if m := s.ask("checkout.fluid.internal.", 1); len(m.Answer) != 1 {
		t.Errorf("answer %v", m)
	}
}
