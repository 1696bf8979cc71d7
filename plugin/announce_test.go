package fluid

import (
	"bytes"
	stdlog "log"
	"strings"
	"testing"

	"github.com/coredns/caddy"
)

// A snapshot that cannot be kept is said at the start, not when it is needed.
func TestAnnounceSnapshot(t *testing.T) {
	var out bytes.Buffer
	old := stdlog.Writer()
	stdlog.SetOutput(&out)
	t.Cleanup(func() { stdlog.SetOutput(old) })
	for path, want := range map[string]bool{"/nonexistent/last.good": true, t.TempDir() + "/last.good": false} {
		out.Reset()
		_, given, err := parse(caddy.NewTestController("dns", "fluid example.org {\n snapshot "+path+"\n}"))
		if err != nil {
			t.Fatal(err)
		}
		announce(&generation{settings: given})
		if got := strings.Contains(out.String(), "snapshot: /nonexistent is not a directory"); got != want {
			t.Errorf("%s: said %q", path, out.String())
		}
	}
}
