package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fluid-sd/fluid/plugin/record"
)

// heartbeat is how often a quiet event stream shows that it is alive.
const heartbeat = 15 * time.Second

// Event is the data of one server-sent event.
type Event struct {
	Generation uint64 `json:"generation"`
	Index      uint64 `json:"index"`
	Kind       string `json:"kind" doc:"instance, service, overlay, member, raft, or reset: everything may have changed."`
	Service    string `json:"service,omitempty"`
	ID         string `json:"id,omitempty"`
	Name       string `json:"name,omitempty"`  // of a member or a server
	State      string `json:"state,omitempty"` // of a member; of a server its suffrage, or leader
	Tier       string `json:"tier,omitempty"`  // gossip, where no commit changed it
	Deleted    bool   `json:"deleted,omitempty"`
}

// streamOps registers what is no single JSON answer.
func (s *server) streamOps(mux *http.ServeMux) {
	doc := s.huma.OpenAPI()
	doc.AddOperation(&huma.Operation{
		OperationID: "watch", Method: http.MethodGet, Path: "/v1/watch", Summary: "Changes as server-sent events", Tags: []string{"watch"},
		Description: "Kinds: instance, service, overlay, member, raft, and reset, which says that the past is not known any more: read anew. " +
			"Of what gossip changed, an event names the service. A client that reconnects with the id of its last event as Last-Event-ID, or ?after=, misses nothing; " +
			"?after=GENERATION:INDEX starts behind a commit, neither starts with what comes next.",
		Parameters: []*huma.Param{{Name: "after", In: "query", Schema: &huma.Schema{Type: huma.TypeString}, Description: "Position after which to start."}},
		Responses:  map[string]*huma.Response{"200": {Description: "text/event-stream"}},
	})
	mux.HandleFunc("GET /v1/watch", s.watch)
	doc.AddOperation(&huma.Operation{
		OperationID: "sd-prometheus", Method: http.MethodGet, Path: "/v1/sd/prometheus", Summary: "Targets for Prometheus http_sd", Tags: []string{"watch"},
		Responses: map[string]*huma.Response{"200": {Description: "Target groups"}, "503": {Description: "Not synced yet"}},
	})
	mux.HandleFunc("GET /v1/sd/prometheus", s.prometheusSD)
}

func (s *server) watch(w http.ResponseWriter, r *http.Request) {
	if !s.View.Status().Synced {
		writeProblem(w, ErrUnsynced)
		return
	}
	from := r.URL.Query().Get("after")
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		from = id
	}
	wt := &watcher{server: s, w: w}
	if err := wt.resumeAt(from); err != nil {
		writeProblem(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	_ = wt.run(r) // the client is gone, or the agent stops
}

// run writes events until the client is gone or the agent stops.
func (wt *watcher) run(r *http.Request) error {
	rc := http.NewResponseController(wt.w)
	alive, look := time.NewTicker(heartbeat), time.NewTicker(lookAround)
	defer alive.Stop()
	defer look.Stop()
	if now := wt.State().Position(); now.Before(wt.pos) {
		// Of a later generation, or of a history that is gone.
		wt.pos = now
		if err := wt.write(Event{Kind: "reset"}); err != nil {
			return err
		}
	}
	if err := wt.around(); err != nil {
		return err
	}
	for {
		if err := rc.Flush(); err != nil {
			return err
		}
		_, _, _, gossip := wt.News(wt.news)
		var err error
		select {
		case <-wt.Cluster.Changed(wt.pos):
			err = wt.committed()
		case <-gossip:
			err = wt.gossip()
		case <-look.C:
			err = wt.around()
		case <-alive.C:
			_, err = fmt.Fprint(wt.w, ": still here\n\n")
		case <-wt.Stopping:
			return nil
		case <-r.Context().Done():
			return r.Context().Err()
		}
		if err != nil {
			return err
		}
	}
}

// committed writes what was committed after the position reached.
func (wt *watcher) committed() error {
	st := wt.State()
	now, before := st.Position(), wt.pos
	if now == before {
		return nil
	}
	entries, ok := st.Since(before)
	if !ok {
		wt.pos = now
		return wt.write(Event{Kind: "reset"})
	}
	for i, e := range entries {
		if i+1 == len(entries) || entries[i+1].Index != e.Index {
			wt.pos = record.Position{Generation: now.Generation, Index: e.Index} // whole: a client can go on behind it
		}
		ev := Event{Index: e.Index, Service: e.Key.Service(), Deleted: e.Deleted}
		switch e.Key.Kind() {
		case record.KindInstance:
			ev.Kind, ev.ID = "instance", string(e.Key)[len("i/")+len(ev.Service)+1:]
		case record.KindService:
			ev.Kind = "service"
		case record.KindOverlay:
			ev.Kind, ev.ID = "overlay", string(e.Key)[len("o/"):]
		default:
			continue
		}
		if err := wt.write(ev); err != nil {
			return err
		}
	}
	wt.pos = now
	return nil
}

// write writes one event. Its index is the position reached, unless it has one.
func (wt *watcher) write(ev Event) error {
	ev.Generation, ev.Index = wt.pos.Generation, cmp.Or(ev.Index, wt.pos.Index)
	b, err := json.Marshal(ev)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(wt.w, "id: %s\nevent: %s\ndata: %s\n\n", wt.id(), ev.Kind, b)
	return err
}

// TargetGroup is one element of Prometheus's http_sd format.
type TargetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// prometheusSD lists what DNS answers, one group per instance. An unsynced
// agent fails, so that Prometheus keeps the targets it has.
func (s *server) prometheusSD(w http.ResponseWriter, _ *http.Request) {
	if !s.View.Status().Synced {
		writeProblem(w, ErrUnsynced)
		return
	}
	groups := []TargetGroup{}
	const page = 1000
	for after := ""; ; {
		names := s.View.Names(after, page)
		for _, name := range names {
			after = name
			_, verdicts, _ := s.View.Service(name)
			for _, v := range verdicts {
				if in, err := instanceOf(v); err == nil && in.Answered {
					groups = append(groups, targetGroup(name, &in))
				}
			}
		}
		if len(names) < page {
			break
		}
	}
	writeJSON(w, http.StatusOK, groups)
}

func targetGroup(service string, in *Instance) TargetGroup {
	g := TargetGroup{Labels: map[string]string{
		"__meta_fluid_service": service, "__meta_fluid_id": in.ID, "__meta_fluid_node": in.Node,
		"__meta_fluid_zone": in.Zone, "__meta_fluid_status": in.Status, "__meta_fluid_tier": in.Tier,
		"__meta_fluid_tags": joined(in.Tags),
	}}
	for k, v := range in.Meta {
		g.Labels["__meta_fluid_meta_"+labelName(k)] = v
	}
	for name, p := range in.Ports {
		g.Labels["__meta_fluid_port_"+labelName(name)] = strconv.Itoa(int(p.Number))
	}
	hosts := in.IPs
	if in.Host != "" {
		hosts = []string{strings.TrimSuffix(in.Host, ".")}
	}
	for _, h := range hosts {
		if in.Port != 0 {
			if a, err := netip.ParseAddr(h); err == nil {
				h = netip.AddrPortFrom(a, in.Port).String()
			} else {
				h += ":" + strconv.Itoa(int(in.Port))
			}
		}
		g.Targets = append(g.Targets, h)
	}
	return g
}

// joined writes tags with a separator before and after each, as Prometheus's
// relabelling examples expect.
func joined(tags []string) string {
	if len(tags) == 0 {
		return ""
	}
	var s strings.Builder
	s.WriteString(",")
	for _, t := range slices.Sorted(slices.Values(tags)) {
		s.WriteString(t + ",")
	}
	return s.String()
}

// labelName makes a key into a part of a Prometheus label.
func labelName(s string) string {
	b := []byte(s)
	for i, c := range b {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			b[i] = '_'
		}
	}
	return string(b)
}
