package record

import (
	"fmt"
	"net/netip"
	"time"
)

// Append appends the canonical encoding of the instance to b.
func (in *Instance) Append(b []byte) []byte {
	b = AppendString(b, 1, in.ID)
	b = AppendString(b, 2, in.Service)
	b = AppendString(b, 3, in.Node)
	b = appendAddrs(b, 4, in.Addrs)
	b = AppendString(b, 5, in.Host)
	b = AppendUint(b, 6, uint64(in.Port))
	for _, p := range in.Ports {
		var e []byte
		e = AppendString(e, 1, p.Name)
		e = AppendUint(e, 2, uint64(p.Number))
		e = AppendUint(e, 3, uint64(p.Proto))
		b = AppendElem(b, 7, e)
	}
	for _, t := range in.Tags {
		b = AppendElem(b, 8, t)
	}
	for _, m := range in.Meta {
		b = AppendElem(b, 9, AppendString(AppendString(nil, 1, m.Key), 2, m.Value))
	}
	if in.Weight != DefaultWeight {
		b = AppendUint(b, 10, uint64(in.Weight)+1) // so that weight 0 differs from none
	}
	b = AppendUint(b, 11, uint64(in.Priority))
	b = AppendString(b, 12, in.Zone)
	b = AppendUint(b, 13, uint64(in.TTL/time.Second))
	b = AppendUint(b, 14, uint64(in.Status))
	b = AppendUint(b, 15, uint64(in.Registered))
	b = AppendUint(b, 16, uint64(in.Expires))
	return append(b, in.unknown...)
}

// DecodeInstance reads what Append wrote. Strings of the result share s. It
// returns an error that wraps ErrMalformed for anything else, and never
// allocates more than a small multiple of len(s).
func DecodeInstance(s string) (Instance, error) {
	in := Instance{Weight: DefaultWeight}
	var err error
	in.unknown, err = fields(s, func(field int, num uint64, data string) (bool, error) {
		switch field {
		case 1:
			in.ID = data
		case 2:
			in.Service = data
		case 3:
			in.Node = data
		case 4:
			return true, decodeAddr(&in.Addrs, data)
		case 5:
			in.Host = data
		case 6:
			return true, narrow(&in.Port, num)
		case 7:
			p, err := decodePort(data)
			in.Ports = append(in.Ports, p)
			return true, err
		case 8:
			in.Tags = append(in.Tags, data)
		case 9:
			m, err := decodePair(data)
			in.Meta = append(in.Meta, m)
			return true, err
		case 10:
			return true, narrow(&in.Weight, num-1)
		case 11:
			return true, narrow(&in.Priority, num)
		case 12:
			in.Zone = data
		case 13:
			in.TTL = time.Duration(min(num, uint64(MaxTTL/time.Second))) * time.Second
		case 14:
			return true, narrow((*uint8)(&in.Status), num)
		case 15:
			in.Registered = int64(num)
		case 16:
			in.Expires = int64(num)
		default:
			return false, nil
		}
		return true, nil
	})
	if err != nil {
		return Instance{}, err
	}
	return in, nil
}

func appendAddrs(b []byte, field int, addrs []netip.Addr) []byte {
	for _, a := range addrs {
		b = AppendElem(b, field, a.AsSlice())
	}
	return b
}

func decodeAddr(dst *[]netip.Addr, data string) error {
	a, ok := netip.AddrFromSlice([]byte(data))
	if !ok {
		return fmt.Errorf("%w: address of %d bytes", ErrMalformed, len(data))
	}
	*dst = append(*dst, a)
	return nil
}

func decodePort(s string) (Port, error) {
	var p Port
	_, err := fields(s, func(field int, num uint64, data string) (bool, error) {
		switch field {
		case 1:
			p.Name = data
		case 2:
			return true, narrow(&p.Number, num)
		case 3:
			return true, narrow((*uint8)(&p.Proto), num)
		}
		return true, nil
	})
	return p, err
}

func decodePair(s string) (Pair, error) {
	var m Pair
	_, err := fields(s, func(field int, _ uint64, data string) (bool, error) {
		switch field {
		case 1:
			m.Key = data
		case 2:
			m.Value = data
		}
		return true, nil
	})
	return m, err
}

// Append appends the canonical encoding of the service to b.
func (s *Service) Append(b []byte) []byte {
	b = AppendString(b, 1, s.Name)
	b = AppendUint(b, 2, uint64(s.Class))
	b = AppendUint(b, 3, uint64(s.TTL/time.Second))
	b = AppendUint(b, 4, uint64(s.NegativeTTL/time.Second))
	b = AppendUint(b, 5, zigzag(int64(s.ServeStale)))
	b = AppendUint(b, 6, uint64(s.AnswerLimit))
	b = AppendUint(b, 7, boolUint(s.GuardOff))
	return append(b, s.unknown...)
}

// DecodeService reads what Append wrote, as DecodeInstance does.
func DecodeService(str string) (Service, error) {
	var s Service
	var err error
	s.unknown, err = fields(str, func(field int, num uint64, data string) (bool, error) {
		switch field {
		case 1:
			s.Name = data
		case 2:
			return true, narrow((*uint8)(&s.Class), num)
		case 3:
			s.TTL = time.Duration(min(num, uint64(MaxTTL/time.Second))) * time.Second
		case 4:
			s.NegativeTTL = time.Duration(min(num, uint64(MaxTTL/time.Second))) * time.Second
		case 5:
			s.ServeStale = time.Duration(unzigzag(num))
		case 6:
			return true, narrow(&s.AnswerLimit, num)
		case 7:
			s.GuardOff = num != 0
		default:
			return false, nil
		}
		return true, nil
	})
	if err != nil {
		return Service{}, err
	}
	return s, nil
}

// Append appends the canonical encoding of the overlay to b.
func (o *Overlay) Append(b []byte) []byte {
	b = AppendString(b, 1, o.ID)
	b = AppendUint(b, 2, uint64(o.Kind))
	b = AppendString(b, 3, o.Service)
	b = AppendString(b, 4, o.Instance)
	b = AppendString(b, 5, o.Node)
	b = AppendUint(b, 6, uint64(o.Weight))
	b = AppendString(b, 7, o.Reason)
	b = AppendUint(b, 8, uint64(o.Expires))
	return append(b, o.unknown...)
}

// DecodeOverlay reads what Append wrote, as DecodeInstance does.
func DecodeOverlay(s string) (Overlay, error) {
	var o Overlay
	var err error
	o.unknown, err = fields(s, func(field int, num uint64, data string) (bool, error) {
		switch field {
		case 1:
			o.ID = data
		case 2:
			return true, narrow((*uint8)(&o.Kind), num)
		case 3:
			o.Service = data
		case 4:
			o.Instance = data
		case 5:
			o.Node = data
		case 6:
			return true, narrow(&o.Weight, num)
		case 7:
			o.Reason = data
		case 8:
			o.Expires = int64(num)
		default:
			return false, nil
		}
		return true, nil
	})
	if err != nil {
		return Overlay{}, err
	}
	return o, nil
}

// Append appends the canonical encoding of the fence to b.
func (f *Fence) Append(b []byte) []byte {
	b = AppendUint(b, 1, uint64(f.Kind))
	if !f.Origin.IsZero() {
		b = AppendElem(b, 2, f.Origin[:])
	}
	b = AppendUint(b, 3, f.Epoch)
	b = AppendString(b, 4, f.Service)
	b = AppendString(b, 5, f.Instance)
	b = AppendUint(b, 6, f.At.Generation)
	b = AppendUint(b, 7, f.At.Index)
	return append(b, f.unknown...)
}

// DecodeFence reads what Append wrote, as DecodeInstance does.
func DecodeFence(s string) (Fence, error) {
	var f Fence
	var err error
	f.unknown, err = fields(s, func(field int, num uint64, data string) (bool, error) {
		switch field {
		case 1:
			return true, narrow((*uint8)(&f.Kind), num)
		case 2:
			if len(data) != len(f.Origin) {
				return true, fmt.Errorf("%w: origin of %d bytes", ErrMalformed, len(data))
			}
			f.Origin = OriginID([]byte(data))
		case 3:
			f.Epoch = num
		case 4:
			f.Service = data
		case 5:
			f.Instance = data
		case 6:
			f.At.Generation = num
		case 7:
			f.At.Index = num
		default:
			return false, nil
		}
		return true, nil
	})
	if err != nil {
		return Fence{}, err
	}
	return f, nil
}

// Append appends the canonical encoding of the node to b.
func (n *Node) Append(b []byte) []byte {
	b = AppendString(b, 1, n.ID)
	b = AppendString(b, 2, n.Name)
	b = appendAddrs(b, 3, n.Addrs)
	b = AppendString(b, 4, n.Zone)
	b = AppendString(b, 5, n.Version)
	for _, m := range n.Members {
		b = AppendElem(b, 6, m)
	}
	b = AppendUint(b, 7, uint64(n.Created))
	b = AppendString(b, 8, n.HTTP)
	return append(b, n.unknown...)
}

// DecodeNode reads what Append wrote, as DecodeInstance does.
func DecodeNode(s string) (Node, error) {
	var n Node
	var err error
	n.unknown, err = fields(s, func(field int, num uint64, data string) (bool, error) {
		switch field {
		case 1:
			n.ID = data
		case 2:
			n.Name = data
		case 3:
			return true, decodeAddr(&n.Addrs, data)
		case 4:
			n.Zone = data
		case 5:
			n.Version = data
		case 6:
			n.Members = append(n.Members, data)
		case 7:
			n.Created = int64(num)
		case 8:
			n.HTTP = data
		default:
			return false, nil
		}
		return true, nil
	})
	if err != nil {
		return Node{}, err
	}
	return n, nil
}

// Append appends the canonical encoding of the report to b.
func (r *Report) Append(b []byte) []byte {
	b = AppendString(b, 1, r.ID)
	b = AppendString(b, 2, r.Service)
	b = AppendUint(b, 3, r.Position.Generation)
	b = AppendUint(b, 4, r.Position.Index)
	b = AppendUint(b, 5, uint64(r.Status))
	b = AppendString(b, 6, r.Reason)
	return append(b, r.unknown...)
}

// DecodeReport reads what Append wrote, as DecodeInstance does.
func DecodeReport(s string) (Report, error) {
	var r Report
	var err error
	r.unknown, err = fields(s, func(field int, num uint64, data string) (bool, error) {
		switch field {
		case 1:
			r.ID = data
		case 2:
			r.Service = data
		case 3:
			r.Position.Generation = num
		case 4:
			r.Position.Index = num
		case 5:
			return true, narrow((*uint8)(&r.Status), num)
		case 6:
			r.Reason = data
		default:
			return false, nil
		}
		return true, nil
	})
	if err != nil {
		return Report{}, err
	}
	return r, nil
}

func zigzag(v int64) uint64   { return uint64(v)<<1 ^ uint64(v>>63) }
func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

func boolUint(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
