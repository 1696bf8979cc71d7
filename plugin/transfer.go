package fluid

import (
	"errors"

	"github.com/coredns/coredns/plugin/transfer"
	"github.com/miekg/dns"
)

// errUnsynced is returned for a transfer before there is anything to transfer.
var errUnsynced = errors.New("nothing is known yet")

// Transfer implements transfer.Transferer. A secondary that has the serial
// gets the SOA record alone, any other the whole zone.
//
// The zone is read while it is sent, service by service: each set is one that
// was true at some moment of the transfer, and the serial is that of its
// start. A change meanwhile raises the serial, which makes the secondary come
// back.
func (f *Fluid) Transfer(zone string, serial uint32) (<-chan []dns.RR, error) {
	var z *served
	for _, s := range *f.block.served.Load() {
		if s.Origin == zone {
			z = s
		}
	}
	if z == nil {
		return nil, transfer.ErrNotAuthoritative
	}
	e := f.engine.Load()
	if e.state.Load() == unsynced {
		return nil, errUnsynced
	}
	soa := *z.soa.Load()
	ch := make(chan []dns.RR)
	go func() {
		defer close(ch)
		// The reader always drains the channel, so sending cannot block for
		// ever; but it may read late, so nothing is locked meanwhile.
		e.guard("transfer", func() {
			ch <- soa
			if serial != 0 && !older(serial, soa[0].(*dns.SOA).Serial) {
				return
			}
			for rrs := range z.Export(e) {
				ch <- rrs
			}
			ch <- soa
		})
	}()
	return ch, nil
}

// older reports whether serial a comes before b (RFC 1982 section 3.2).
func older(a, b uint32) bool { return a != b && int32(b-a) > 0 }
