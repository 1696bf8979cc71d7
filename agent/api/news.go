package api

import (
	"cmp"
	"fmt"
	"hash/crc32"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// lookAround is how often a watcher compares members and consensus with what
// it saw last.
const lookAround = time.Second

// watcher is one event stream: what its client knows, by which it resumes.
type watcher struct {
	*server
	w      http.ResponseWriter
	pos    record.Position
	news   string            // version of the gossip, as Config.News counts it
	states map[string]string // of members and servers, by kind and id
}

// resumeAt sets where a stream starts: an event id, or now if it is empty. The
// id is POSITION, or POSITION/NEWS.SUM with the version of the gossip and the
// checksum of the states that the client has seen.
func (wt *watcher) resumeAt(id string) error {
	wt.states = wt.look()
	if id == "" {
		wt.pos = wt.State().Position()
		_, wt.news, _, _ = wt.News("")
		return nil
	}
	at, rest, found := strings.Cut(id, "/")
	var err error
	if wt.pos, err = record.ParsePosition(at); err != nil {
		return err
	}
	news, sum, ok := strings.Cut(rest, ".")
	if wt.news = news; !ok {
		_, wt.news, _, _ = wt.News("")
	}
	if found && sum != wt.sum() {
		clear(wt.states) // everything is new to this client
	}
	return nil
}

// id is what a client resumes by.
func (wt *watcher) id() string {
	return fmt.Sprintf("%d:%d/%s.%s", wt.pos.Generation, wt.pos.Index, wt.news, wt.sum())
}

func (wt *watcher) sum() string {
	keys := make([]string, 0, len(wt.states))
	for k, v := range wt.states {
		keys = append(keys, k+"="+v)
	}
	slices.Sort(keys)
	return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(strings.Join(keys, ";"))))
}

// gossip writes the services that gossip changed.
func (wt *watcher) gossip() error {
	services, now, ok, _ := wt.News(wt.news)
	wt.news = now
	if !ok {
		return wt.write(Event{Kind: "reset"})
	}
	for _, name := range services {
		if err := wt.write(Event{Kind: "service", Service: name, Tier: "gossip"}); err != nil {
			return err
		}
	}
	return nil
}

// look returns the states of members and of the servers of consensus.
func (wt *watcher) look() map[string]string {
	out := map[string]string{}
	for _, m := range wt.Members() {
		out["member/"+m.ID] = m.Name + " " + m.State
	}
	r := wt.Raft()
	for _, sv := range r.Servers {
		state := sv.Suffrage
		if sv.ID == r.Leader.ID {
			state = "leader"
		}
		out["raft/"+sv.ID] = sv.Name + " " + state
	}
	return out
}

// around writes which members and servers are not as they were.
func (wt *watcher) around() error {
	now := wt.look()
	var changed []Event
	event := func(key, value string, deleted bool) {
		kind, id, _ := strings.Cut(key, "/")
		name, state, _ := strings.Cut(value, " ")
		changed = append(changed, Event{Kind: kind, ID: id, Name: name, State: state, Deleted: deleted})
	}
	for key, value := range now {
		if wt.states[key] != value {
			event(key, value, false)
		}
	}
	for key, value := range wt.states {
		if _, ok := now[key]; !ok {
			event(key, value, true)
		}
	}
	wt.states = now
	slices.SortFunc(changed, func(a, b Event) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID)) })
	for _, ev := range changed {
		if err := wt.write(ev); err != nil {
			return err
		}
	}
	return nil
}
