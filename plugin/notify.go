package fluid

import (
	"github.com/coredns/coredns/plugin/transfer"
)

// notifier tells the secondaries of a block that its zones changed. It runs in
// its own goroutine, because a secondary may take seconds to acknowledge.
type notifier struct {
	transfer *transfer.Transfer
	zones    []string
	pending  chan struct{} // capacity 1: changes meanwhile are one
	stop     chan struct{}
}

// wake asks for a notification. It does not block.
func (n *notifier) wake() {
	select {
	case n.pending <- struct{}{}:
	default:
	}
}

func (n *notifier) run() {
	for {
		select {
		case <-n.stop:
			return
		case <-n.pending:
		}
		for _, z := range n.zones {
			if err := n.transfer.Notify(z); err != nil {
				log.Warningf("notify of %s: %v", z, err)
			}
		}
	}
}

// follow makes the notifiers those of the given blocks. Called with mu held.
func (e *engine) follow(blocks []*block) {
	want := map[*transfer.Transfer][]string{}
	for _, b := range blocks {
		if b.transfer == nil {
			continue
		}
		for _, z := range b.zones {
			want[b.transfer] = append(want[b.transfer], z.Origin)
		}
	}
	for n := range e.notify {
		if _, ok := want[n.transfer]; !ok {
			close(n.stop)
			delete(e.notify, n)
		}
		delete(want, n.transfer)
	}
	for x, zones := range want {
		n := &notifier{transfer: x, zones: zones, pending: make(chan struct{}, 1), stop: make(chan struct{})}
		e.notify[n] = true
		e.done.Go(func() { e.guard("notify", n.run) })
	}
}
