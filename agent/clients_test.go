package agent

import (
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluid-sd/fluid/plugin/feed"
	"github.com/fluid-sd/fluid/plugin/record"
)

// nobody is the state of a feed that nobody follows.
type nobody struct{ feed.Source }

// Who waits for a DNS member at a client hears at once that the client turned
// silent, however long he would wait.
func TestEverywhereClientTurnsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := feed.NewServer(feed.ServerConfig{Source: nobody{}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Stop()
		a := &Agent{feed: f, clients: newClients(), stopping: make(chan struct{})}
		begin, pos := time.Now(), record.Position{Generation: 1, Index: 7}
		a.clients.put(reported{id: "done", at: begin.Add(-time.Second), members: []feed.Member{{ID: "d1", Connected: true, Applied: pos}}})
		a.clients.put(reported{id: "behind", at: begin, members: []feed.Member{{ID: "d2", Connected: true}}})
		go func() { // it reports once more, and nothing new
			<-time.After(time.Second)
			a.clients.put(reported{id: "behind", at: time.Now(), members: []feed.Member{{ID: "d2", Connected: true}}})
		}()
		got := a.local(t.Context(), pos)
		if took, want := time.Since(begin), time.Second+clientSilence; took != want {
			t.Errorf("it took %s, want %s", took, want)
		}
		if len(got.Members) != 2 || got.Members[0].Connected || got.Members[0].ID != "d2" {
			t.Errorf("got %+v", got.Members)
		}
	})
}

// A new client has room as long as another one is gone; if none is, that is
// said, but not with each report.
func TestClientsFull(t *testing.T) {
	c := newClients()
	now := time.Now()
	for i := range maxFollowers {
		if c.put(reported{id: fmt.Sprint(i), at: now.Add(time.Duration(i) * time.Millisecond)}) {
			t.Fatalf("no room for client %d", i)
		}
	}
	has := func(id string) bool { _, ok := c.byID[id]; return ok }
	soon := now.Add(clientSilence / 2)
	if !c.put(reported{id: "new", at: soon}) || has("new") {
		t.Error("it was taken, or nothing is said")
	}
	if c.put(reported{id: "new", at: soon.Add(time.Second)}) || c.put(reported{id: "7", at: soon.Add(time.Second)}) {
		t.Error("it was said again")
	}
	if c.put(reported{id: "new", at: now.Add(clientSilence)}) || !has("new") || has("0") || len(c.byID) != maxFollowers {
		t.Error("it did not take the place of the client that is silent for longest")
	}
}
