package fluid

import (
	"context"

	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/record"
)

var stateNames = [...]string{"unsynced", "fresh", "stale"}

// Metadata implements metadata.Provider. The values are worked out only if
// somebody asks for them.
func (f *Fluid) Metadata(ctx context.Context, state request.Request) context.Context {
	e, name, typ := f.engine.Load(), state.Name(), state.QType()
	z := f.zone(name)
	if e == nil || z == nil {
		return ctx
	}
	metadata.SetValueFunc(ctx, "fluid/state", func() string { return stateNames[e.state.Load()] })
	metadata.SetValueFunc(ctx, "fluid/position", func() string { return e.position().String() })
	metadata.SetValueFunc(ctx, "fluid/service", func() string {
		if e.state.Load() == unsynced || typ == dns.TypeNone {
			return ""
		}
		if a := e.answer(z, name, typ); a.Service != nil {
			return a.Service.Name
		}
		return ""
	})
	return ctx
}

// position returns the position of the data that is answered from.
func (e *engine) position() record.Position {
	if p := e.visible.Load(); p != nil {
		return *p
	}
	return record.Position{}
}
