package record

import "strings"

// Kind is the first part of an entry's key: what the entry is about.
type Kind byte

// The kinds of committed entry. Kinds that a member does not know are kept
// and passed on, never interpreted.
const (
	KindInstance Kind = 'i' // key SERVICE/ID, value Instance
	KindService  Kind = 's' // key SERVICE, value Service
	KindOverlay  Kind = 'o' // key ID, value Overlay
	KindFence    Kind = 'f' // key KIND/ORIGIN/SERVICE/ID, value Fence
)

// The kinds of entry that only an origin of the mesh writes, beside
// KindInstance.
const (
	KindNode   Kind = 'n' // key n/, value Node: the origin's header
	KindReport Kind = 'r' // key SERVICE/ID, value Report
)

// NodeKey is the key of an origin's header.
const NodeKey Key = "n/"

// ReportKey returns the key of the report on an instance.
func ReportKey(service, id string) Key { return Key("r/" + service + "/" + id) }

// Key names one committed entry: KIND "/" PATH.
type Key string

// InstanceKey returns the key of an instance.
func InstanceKey(service, id string) Key { return Key("i/" + service + "/" + id) }

// ServiceKey returns the key of a service.
func ServiceKey(service string) Key { return Key("s/" + service) }

// OverlayKey returns the key of an overlay.
func OverlayKey(id string) Key { return Key("o/" + id) }

// Key returns the key of the fence.
func (f *Fence) Key() Key {
	switch f.Kind {
	case FenceReap:
		return Key("f/reap/" + f.Origin.String())
	case FenceClass:
		return Key("f/class/" + f.Service)
	case FenceTransfer:
		return Key("f/transfer/" + f.Service + "/" + f.Instance)
	}
	return Key("f/kill/" + f.Origin.String() + "/" + f.Service + "/" + f.Instance)
}

// Kind returns the kind of the entry, 0 for a key without one.
func (k Key) Kind() Kind {
	if len(k) < 2 || k[1] != '/' {
		return 0
	}
	return Kind(k[0])
}

// Service returns the service that an instance, report or service key names, else "".
func (k Key) Service() string {
	switch k.Kind() {
	case KindInstance, KindReport:
		s, _, _ := strings.Cut(string(k[2:]), "/")
		return s
	case KindService:
		return string(k[2:])
	}
	return ""
}

// Entry is one committed fact: the value of a key at the Raft index that last
// changed it, or its removal. Entries are immutable.
type Entry struct {
	Key     Key
	Value   string // encoded record; empty if Deleted
	Index   uint64 // Raft index of the last change
	Deleted bool
}
