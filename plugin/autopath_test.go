package fluid

import (
	"slices"
	"testing"

	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/answer"
)

func TestAutoPath(t *testing.T) {
	f := &Fluid{shared: &shared{block: &block{}}, Next: test.ErrorHandler()}
	search := func(name string) []string {
		return f.AutoPath(request.Request{Req: new(dns.Msg).SetQuestion(name, dns.TypeA)})
	}
	if got := search("web.fluid.internal."); got != nil {
		t.Errorf("before the start: %q", got)
	}
	var list []*served
	for _, cfg := range []answer.Config{
		{Origin: "10.in-addr.arpa.", Forward: "fluid.internal."}, {Origin: "eu.fluid.internal."}, {Origin: "fluid.internal."}, {Origin: "."},
	} {
		list = append(list, &served{Zone: answer.NewZone(cfg)})
	}
	f.block.served.Store(&list)
	for name, want := range map[string][]string{
		"web.fluid.internal.":         {"fluid.internal.", "eu.fluid.internal.", ""},
		"WWW.example.FLUID.internal.": {"fluid.internal.", "eu.fluid.internal.", ""},
		"web.eu.fluid.internal.":      {"eu.fluid.internal.", "fluid.internal.", ""},
		"fluid.internal.":             nil, // an apex
		"web.example.org.":            nil, // in the root zone only
		"9.0.0.10.in-addr.arpa.":      nil,
		"_why.web.fluid.internal.":    nil,
	} {
		if got := search(name); !slices.Equal(got, want) {
			t.Errorf("AutoPath(%s) = %q, want %q", name, got, want)
		}
	}
	f.Next = nil
	if got, want := search("web.fluid.internal."), []string{"fluid.internal.", "eu.fluid.internal."}; !slices.Equal(got, want) {
		t.Errorf("with no plugin after this one: %q, want %q", got, want)
	}
}
