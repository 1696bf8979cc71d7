package catalog

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	"github.com/fluid-sd/fluid/plugin/record"
)

// maxGraves bounds the removals a slot remembers, so that it can bring a
// member that is behind up to date with less than everything.
const maxGraves = 4096

// slot is the committed state: everything Raft agreed on up to a position.
type slot struct {
	pos      record.Position
	hash     uint64
	live     int // entries, quarantined ones included
	services map[string]*service
	byNode   map[string]map[string]int     // node → service → instances of it there
	onNode   map[string][]*overlay         // node → overlays that target it
	overlays map[record.Key]*overlay       // every overlay that decoded
	fences   map[record.Key]committedFence // every fence that decoded
	rest     map[record.Key]record.Entry   // kinds this version does not know
	bad      map[record.Key]record.Entry   // quarantined: known kind, undecodable
	graves   []record.Entry                // removals in order of index, newest last
	floor    uint64                        // removals up to here may be forgotten
	retired  map[record.OriginID]uint64    // reap fences: last epoch hidden
	kills    map[killKey]record.Position   // kill fences
	moved    map[instanceKey]record.Fence  // transfer fences
	classAt  map[string]record.Position    // class fences
}

// service is the committed part of one service.
type service struct {
	name     string
	rows     []row // sorted by id
	config   *config
	overlays []*overlay // on the service or on one of its instances
	index    uint64     // greatest index that changed anything here
}

// row is one committed instance. Its id is the first field of the value.
type row struct {
	value string
	index uint64
}

type config struct {
	record.Service
	value string
	index uint64
}

type overlay struct {
	record.Overlay
	value string
	index uint64
}

type committedFence struct {
	record.Fence
	value string
	index uint64
}

type instanceKey struct{ service, id string }

type killKey struct {
	origin record.OriginID
	instanceKey
}

func newSlot(pos record.Position) *slot {
	return &slot{
		pos:      pos,
		floor:    pos.Index,
		services: map[string]*service{},
		byNode:   map[string]map[string]int{},
		onNode:   map[string][]*overlay{},
		overlays: map[record.Key]*overlay{},
		fences:   map[record.Key]committedFence{},
		rest:     map[record.Key]record.Entry{},
		bad:      map[record.Key]record.Entry{},
		retired:  map[record.OriginID]uint64{},
		kills:    map[killKey]record.Position{},
		moved:    map[instanceKey]record.Fence{},
		classAt:  map[string]record.Position{},
	}
}

// valueID returns the id of an encoded instance: the data of its first field.
// Only values that passed checkInstance come here.
func valueID(value string) string { return value[2 : 2+int(value[1])] }

// checkInstance decodes an instance completely and compares it with its key,
// so that nothing after it has to expect a broken value.
func checkInstance(service, id, value string) (record.Summary, bool) {
	in, err := record.DecodeInstance(value)
	if err != nil || in.Service != service || in.ID != id || in.Label() == "" || len(in.Addrs) == 0 && in.Host == "" {
		return record.Summary{}, false
	}
	// The canonical encoding starts with the id; see valueID.
	if len(value) < 2+len(id) || value[0] != 1<<3|2 || int(value[1]) != len(id) {
		return record.Summary{}, false
	}
	sum, err := record.Summarize(value)
	return sum, err == nil
}

func (s *slot) service(name string) *service {
	sv := s.services[name]
	if sv == nil {
		sv = &service{name: strings.Clone(name)}
		s.services[sv.name] = sv
	}
	return sv
}

// get returns the live entry of a key.
func (s *slot) get(k record.Key) (record.Entry, bool) {
	if e, ok := s.bad[k]; ok {
		return e, true
	}
	switch k.Kind() {
	case record.KindInstance:
		name, id, _ := strings.Cut(string(k[2:]), "/")
		if sv := s.services[name]; sv != nil {
			if i, ok := sv.find(id); ok {
				return record.Entry{Key: k, Value: sv.rows[i].value, Index: sv.rows[i].index}, true
			}
		}
	case record.KindService:
		if sv := s.services[string(k[2:])]; sv != nil && sv.config != nil {
			return record.Entry{Key: k, Value: sv.config.value, Index: sv.config.index}, true
		}
	case record.KindOverlay:
		if o := s.overlays[k]; o != nil {
			return record.Entry{Key: k, Value: o.value, Index: o.index}, true
		}
	case record.KindFence:
		if f, ok := s.fences[k]; ok {
			return record.Entry{Key: k, Value: f.value, Index: f.index}, true
		}
	}
	e, ok := s.rest[k]
	return e, ok
}

// set makes e the state of its key and notes what it touched.
func (s *slot) set(e record.Entry, t *touched) {
	old, had := s.get(e.Key)
	if had {
		s.hash -= EntryHash(old)
		s.live--
		s.drop(e.Key, e.Index, t)
	}
	if e.Deleted {
		s.bury(record.Entry{Key: e.Key, Index: e.Index, Deleted: true})
		return
	}
	s.hash += EntryHash(e)
	s.live++
	if !s.put(e, t) {
		s.bad[e.Key] = e
	}
}

// bury remembers a removal, within bounds.
func (s *slot) bury(e record.Entry) {
	i, found := slices.BinarySearchFunc(s.graves, e.Index, func(g record.Entry, x uint64) int { return cmp.Compare(g.Index, x) })
	for found && i < len(s.graves) && s.graves[i].Index == e.Index {
		if s.graves[i].Key == e.Key {
			return
		}
		i++
	}
	s.graves = slices.Insert(s.graves, i, e)
	if len(s.graves) > maxGraves {
		n := len(s.graves) / 4
		s.floor = max(s.floor, s.graves[n-1].Index)
		s.graves = slices.Delete(s.graves, 0, n)
	}
}

// put stores a live entry of a key that holds nothing. It reports false for an
// entry of a known kind that does not decode.
func (s *slot) put(e record.Entry, t *touched) bool {
	switch e.Key.Kind() {
	case record.KindInstance:
		return s.putInstance(e, t)
	case record.KindService:
		r, err := record.DecodeService(e.Value)
		if err != nil || r.Name != string(e.Key[2:]) {
			return false
		}
		sv := s.service(r.Name)
		sv.config = &config{Service: r, value: e.Value, index: e.Index}
		t.service(sv, e.Index)
	case record.KindOverlay:
		r, err := record.DecodeOverlay(e.Value)
		if err != nil || record.OverlayKey(r.ID) != e.Key {
			return false
		}
		o := &overlay{Overlay: r, value: e.Value, index: e.Index}
		s.overlays[e.Key] = o
		if o.Node != "" {
			s.onNode[o.Node] = append(s.onNode[o.Node], o)
		} else {
			sv := s.service(o.Service)
			sv.overlays = append(sv.overlays, o)
		}
		s.touchOverlay(o, e.Index, t)
	case record.KindFence:
		f, err := record.DecodeFence(e.Value)
		if err != nil || f.Key() != e.Key {
			return false
		}
		s.fences[e.Key] = committedFence{Fence: f, value: e.Value, index: e.Index}
		s.indexFence(f, e.Index, t)
	default:
		s.rest[e.Key] = e
	}
	return true
}

func (s *slot) putInstance(e record.Entry, t *touched) bool {
	name, id, _ := strings.Cut(string(e.Key[2:]), "/")
	sum, ok := checkInstance(name, id, e.Value)
	if !ok {
		return false
	}
	sv := s.service(name)
	i, _ := sv.find(id)
	sv.rows = slices.Insert(sv.rows, i, row{value: e.Value, index: e.Index})
	if sum.Node != "" {
		m := s.byNode[sum.Node]
		if m == nil {
			m = map[string]int{}
			s.byNode[strings.Clone(sum.Node)] = m
		}
		m[sv.name]++
	}
	t.service(sv, e.Index)
	return true
}

// drop removes the live entry of a key at the given index.
func (s *slot) drop(k record.Key, index uint64, t *touched) {
	if _, ok := s.bad[k]; ok {
		delete(s.bad, k)
		return
	}
	switch k.Kind() {
	case record.KindInstance:
		name, id, _ := strings.Cut(string(k[2:]), "/")
		sv := s.services[name]
		i, _ := sv.find(id)
		sum, _ := record.Summarize(sv.rows[i].value)
		sv.rows = slices.Delete(sv.rows, i, i+1)
		if m := s.byNode[sum.Node]; m != nil {
			if m[name]--; m[name] == 0 {
				delete(m, name)
			}
			if len(m) == 0 {
				delete(s.byNode, sum.Node)
			}
		}
		t.service(sv, index)
		s.prune(sv)
	case record.KindService:
		sv := s.services[string(k[2:])]
		sv.config = nil
		t.service(sv, index)
		s.prune(sv)
	case record.KindOverlay:
		o := s.overlays[k]
		delete(s.overlays, k)
		s.touchOverlay(o, index, t)
		if o.Node != "" {
			if s.onNode[o.Node] = without(s.onNode[o.Node], o); len(s.onNode[o.Node]) == 0 {
				delete(s.onNode, o.Node)
			}
		} else {
			sv := s.services[o.Service]
			sv.overlays = without(sv.overlays, o)
			s.prune(sv)
		}
	case record.KindFence:
		f := s.fences[k].Fence
		delete(s.fences, k)
		s.unindexFence(f, t)
	default:
		delete(s.rest, k)
	}
}

func without(list []*overlay, o *overlay) []*overlay {
	return slices.DeleteFunc(list, func(x *overlay) bool { return x == o })
}

// prune forgets a service of which nothing is committed any more.
func (s *slot) prune(sv *service) {
	if len(sv.rows) == 0 && sv.config == nil && len(sv.overlays) == 0 {
		delete(s.services, sv.name)
	}
}

func (s *slot) touchOverlay(o *overlay, index uint64, t *touched) {
	if o.Node == "" {
		t.service(s.service(o.Service), index)
		return
	}
	t.addNode(o.Node)
	for name := range s.byNode[o.Node] {
		t.service(s.services[name], index)
	}
}

func (s *slot) indexFence(f record.Fence, index uint64, t *touched) {
	at := f.At
	if at.IsZero() {
		at = record.Position{Generation: s.pos.Generation, Index: index}
	}
	switch f.Kind {
	case record.FenceKill:
		s.kills[killKey{f.Origin, instanceKey{f.Service, f.Instance}}] = at
	case record.FenceReap:
		s.retired[f.Origin] = f.Epoch
		t.reaped = true
	case record.FenceClass:
		s.classAt[f.Service] = at
	case record.FenceTransfer:
		f.At = at
		s.moved[instanceKey{f.Service, f.Instance}] = f
	}
	if f.Service != "" {
		t.addService(f.Service)
	}
}

func (s *slot) unindexFence(f record.Fence, t *touched) {
	switch f.Kind {
	case record.FenceKill:
		delete(s.kills, killKey{f.Origin, instanceKey{f.Service, f.Instance}})
	case record.FenceReap:
		delete(s.retired, f.Origin)
		t.reaped = true
	case record.FenceClass:
		delete(s.classAt, f.Service)
	case record.FenceTransfer:
		delete(s.moved, instanceKey{f.Service, f.Instance})
	}
	if f.Service != "" {
		t.addService(f.Service)
	}
}

// find returns where the instance with the id is or belongs.
func (sv *service) find(id string) (int, bool) {
	if n := len(sv.rows); n == 0 || valueID(sv.rows[n-1].value) < id {
		return n, false // entries mostly come in key order
	}
	return slices.BinarySearchFunc(sv.rows, id, func(r row, id string) int { return cmp.Compare(valueID(r.value), id) })
}

// entries yields every live entry, service by service.
func (s *slot) entries() iter.Seq[record.Entry] {
	return func(yield func(record.Entry) bool) {
		for name, sv := range s.services {
			if sv.config != nil && !yield(record.Entry{Key: record.ServiceKey(name), Value: sv.config.value, Index: sv.config.index}) {
				return
			}
			for _, r := range sv.rows {
				if !yield(record.Entry{Key: record.InstanceKey(name, valueID(r.value)), Value: r.value, Index: r.index}) {
					return
				}
			}
		}
		for k, o := range s.overlays {
			if !yield(record.Entry{Key: k, Value: o.value, Index: o.index}) {
				return
			}
		}
		for k, f := range s.fences {
			if !yield(record.Entry{Key: k, Value: f.value, Index: f.index}) {
				return
			}
		}
		for _, m := range []map[record.Key]record.Entry{s.rest, s.bad} {
			for _, e := range m {
				if !yield(e) {
					return
				}
			}
		}
	}
}
