package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// carry is a Forwarder to stores of this process, by the URL of their agents.
type carry func(ctx context.Context, leader Server, request []byte) ([]byte, error)

func (f carry) Forward(ctx context.Context, leader Server, request []byte) ([]byte, error) {
	return f(ctx, leader, request)
}

// openClient opens a client whose requests go to s, and closes it with the test.
func openClient(t *testing.T, dir string, s *Store, edit ...func(*ClientConfig)) *Client {
	t.Helper()
	cfg := ClientConfig{Dir: dir, Name: "client1", Logger: slog.New(slog.DiscardHandler), Forwarder: carry(
		func(ctx context.Context, _ Server, request []byte) ([]byte, error) { return s.Serve(ctx, request) },
	)}
	for _, e := range edit {
		e(&cfg)
	}
	c, err := OpenClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// told is what a server tells its clients.
func told(s *Store) Cluster {
	k := Cluster{ID: s.State().ClusterID(), Servers: s.Servers(), Members: []Member{}}
	for i := range k.Servers {
		k.Servers[i].HTTP = "http://" + k.Servers[i].ID
	}
	for m := range s.State().Members() {
		k.Members = append(k.Members, m)
	}
	return k
}

// follow brings a client to where from is, by an increment if that is possible.
func follow(t *testing.T, c *Client, from State) {
	t.Helper()
	at := c.State().Position()
	entries, ok := from.Since(at)
	var err error
	if ok && !at.IsZero() {
		err = c.Apply(at, from.Position(), entries)
	} else {
		err = c.Replace(from.Position(), from.Entries(), from.Hash())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// same fails the test unless both states hold the same.
func same(t *testing.T, what string, got, want State) {
	t.Helper()
	if got.Position() != want.Position() || got.Hash() != want.Hash() || got.ClusterID() != want.ClusterID() ||
		got.Instances() != want.Instances() || got.Bytes() != want.Bytes() {
		t.Fatalf("%s: got %s hash %x cluster %s, %d instances, %d bytes; want %s %x %s %d %d", what,
			got.Position(), got.Hash(), got.ClusterID(), got.Instances(), got.Bytes(),
			want.Position(), want.Hash(), want.ClusterID(), want.Instances(), want.Bytes())
	}
	if g, w := slices.Collect(got.Entries()), slices.Collect(want.Entries()); !slices.Equal(g, w) {
		t.Fatalf("%s: got entries %v, want %v", what, g, w)
	}
	if g, w := got.s.services.len(), want.s.services.len(); g > w {
		t.Fatalf("%s: got %d services counted, want %d", what, g, w)
	}
	g, w := got.Services("", 100), want.Services("", 100)
	for i := range w {
		if len(g) != len(w) || g[i].Name != w[i].Name || g[i].Instances != w[i].Instances {
			t.Fatalf("%s: got services %+v, want %+v", what, g, w)
		}
	}
}

// A client that follows a server, now by increments, now after being cut off,
// now restarted from disk, has what the server has; and who follows the client
// gets it, too.
func TestClientFollows(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	dir := t.TempDir()
	c, last := openClient(t, dir, s), openClient(t, t.TempDir(), s)
	if err := errors.Join(c.Learn(told(s)), last.Learn(told(s))); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	ctx := t.Context()
	for i := range 150 {
		service, ip := fmt.Sprintf("svc-%d", rng.IntN(4)), fmt.Sprintf("10.0.0.%d", rng.IntN(8))
		var err error
		switch rng.IntN(8) {
		case 0:
			_, err = s.DeregisterInstance(ctx, Meta{}, service, ip)
		case 1:
			_, err = s.Deregister(ctx, Meta{}, service)
		case 2:
			_, err = s.PutOverlay(ctx, Meta{}, record.Overlay{ID: "o" + ip[len(ip)-1:], Kind: record.OverlayDrain, Service: service})
		case 3:
			_, err = s.DeleteOverlay(ctx, Meta{}, "o"+ip[len(ip)-1:])
		default:
			in := instance(service, ip)
			in.Weight = uint16(rng.IntN(100) + 1)
			_, err = s.Register(ctx, Meta{}, []record.Instance{in})
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		if rng.IntN(3) == 0 {
			continue // and get several changes at once next time
		}
		follow(t, c, s.State())
		same(t, "client", c.State(), s.State())
		if i%5 == 0 {
			follow(t, last, c.State())
			same(t, "client of a client", last.State(), s.State())
		}
		if rng.IntN(10) == 0 {
			before := c.State()
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			c = openClient(t, dir, s)
			same(t, "client after a restart", c.State(), before)
		}
	}
	if pos := c.State().Position(); pos.Before(s.State().Position()) {
		follow(t, c, s.State())
	}

	// Older state changes nothing, nor does what does not follow.
	now := c.State()
	old := record.Position{Generation: now.Position().Generation, Index: 1}
	if err := c.Replace(old, func(func(record.Entry) bool) {}, 0); err != nil {
		t.Error(err)
	}
	if err := c.Apply(record.Position{}, old, nil); err != nil {
		t.Error(err)
	}
	next := now.Position()
	next.Index += 5
	if err := c.Apply(old, next, nil); err == nil {
		t.Error("an increment from elsewhere was applied")
	}
	if err := c.Replace(next, now.Entries(), now.Hash()+1); err == nil {
		t.Error("a state with another hash was taken")
	}
	same(t, "after what must change nothing", c.State(), now)
}

// The file of the state is a convenience: damaged, it is fetched again.
func TestClientStateDamaged(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	register(t, s, instance("web", "10.0.0.1"))
	dir := t.TempDir()
	c := openClient(t, dir, s)
	if err := c.Learn(told(s)); err != nil {
		t.Fatal(err)
	}
	follow(t, c, s.State())
	id := c.ServerID()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, clientLast)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	c = openClient(t, dir, s)
	if c.State().Initialized() || c.ServerID() != id || len(c.Servers()) != 1 || c.ClusterID() != s.State().ClusterID() {
		t.Errorf("got state %s, id %s, servers %+v", c.State().Position(), c.ServerID(), c.Servers())
	}
	follow(t, c, s.State())
	same(t, "fetched again", c.State(), s.State())
}

// Writes and linearizable reads of a client go to the leader, and come back as
// what they are: done, refused, not done, or not known.
func TestClientForwards(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	refreshed := make(chan struct{}, 1)
	down := error(nil)
	c := openClient(t, t.TempDir(), s, func(cfg *ClientConfig) {
		cfg.WriteTimeout = 200 * time.Millisecond
		cfg.Refresh = func() {
			select {
			case refreshed <- struct{}{}:
			default:
			}
		}
		to := cfg.Forwarder
		cfg.Forwarder = carry(func(ctx context.Context, leader Server, request []byte) ([]byte, error) {
			if down != nil {
				return nil, down
			}
			return to.Forward(ctx, leader, request)
		})
	})
	ctx := t.Context()
	ins := []record.Instance{instance("web", "10.0.0.1")}
	if _, err := c.Register(ctx, Meta{}, ins); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUnknown) {
		t.Errorf("no leader known: got %v, want ErrUnavailable", err)
	}
	select {
	case <-refreshed:
	default:
		t.Error("nobody was asked for news of the leader")
	}
	if err := c.Learn(told(s)); err != nil {
		t.Fatal(err)
	}
	rs, err := c.Register(ctx, Meta{Principal: "alice"}, ins)
	if err != nil || !rs[0].Created || rs[0].Position != s.State().Position() {
		t.Fatalf("register: got %+v, %v", rs, err)
	}
	read := make(chan State)
	go func() {
		st, _ := c.Linearizable(ctx)
		read <- st
	}()
	select {
	case st := <-read:
		t.Fatalf("linearizable: got %s before the client had what was written", st.Position())
	case <-time.After(50 * time.Millisecond):
	}
	follow(t, c, s.State())
	if st := <-read; st.Position() != rs[0].Position {
		t.Errorf("linearizable: got %s, want %s", st.Position(), rs[0].Position)
	}
	wrong := uint64(7)
	if _, err := c.Deregister(ctx, Meta{IfMatch: &wrong}, "web"); !errors.Is(err, ErrPrecondition) {
		t.Errorf("If-Match: got %v", err)
	}
	if _, err := c.Register(ctx, Meta{}, []record.Instance{{Service: "Web"}}); err == nil || errors.Is(err, ErrUnavailable) {
		t.Errorf("not valid: got %v", err)
	}
	for want, other := range map[error]error{ErrUnavailable: ErrUnknown, ErrUnknown: ErrUnavailable} {
		down = fmt.Errorf("the line is cut: %w", want)
		if _, err := c.Deregister(ctx, Meta{}, "web"); !errors.Is(err, want) || errors.Is(err, other) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	if _, err := c.Linearizable(ctx); !errors.Is(err, ErrUnavailable) {
		t.Errorf("linearizable while cut off: got %v", err)
	}
	c.Lost()
	if l := c.Leader(); l.ID != "" || len(c.Servers()) != 1 {
		t.Errorf("no server to ask: got leader %+v of %+v", l, c.Servers())
	}
	if err := c.Learn(told(s)); err != nil {
		t.Fatal(err)
	}
	down = nil

	if _, err := c.Join(ctx, Meta{}, JoinRequest{}); !isNotLeader(err, s.ServerID()) {
		t.Errorf("join: got %v, want the leader named", err)
	}
	if reply, err := c.Serve(ctx, record.AppendUint(nil, 1, requestWrite)); err != nil || !strings.Contains(string(reply), "leader") {
		t.Errorf("serve: got %q, %v", reply, err)
	}
	k := told(s)
	k.ID = strings.Repeat("0", 32)
	if err := c.Learn(k); !errors.Is(err, ErrOtherCluster) || !strings.Contains(err.Error(), k.ID) || !strings.Contains(err.Error(), s.State().ClusterID()) {
		t.Errorf("another cluster: got %v, want ErrOtherCluster with both ids", err)
	}
}

func isNotLeader(err error, id string) bool {
	nl, ok := errors.AsType[*NotLeaderError](err)
	return ok && nl.Leader.ID == id
}

// The roster comes beside the state, and goes as it came.
func TestClientRoster(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	c := openClient(t, t.TempDir(), s)
	if err := c.Learn(told(s)); err != nil {
		t.Fatal(err)
	}
	if err := c.PutMembers(t.Context(), Meta{}, []Member{{ID: "d1", Name: "dns1"}, {ID: "d2", Name: "dns2"}}); err != nil {
		t.Fatal(err)
	}
	if err := c.Learn(told(s)); err != nil {
		t.Fatal(err)
	}
	if m, ok := c.State().Member("d2"); !ok || m.Name != "dns2" {
		t.Errorf("d2: got %+v, %v", m, ok)
	}
	if err := c.ForgetMember(t.Context(), Meta{}, "d2"); err != nil {
		t.Fatal(err)
	}
	follow(t, c, s.State())
	if _, ok := c.State().Member("d1"); !ok {
		t.Error("the roster was lost with a new state")
	}
	if err := c.Learn(told(s)); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.State().Member("d2"); ok {
		t.Error("d2 is still there")
	}
}

// A client must not begin where a server has voted, and keeps the identity of
// one that never did.
func TestClientDirectory(t *testing.T) {
	dir := t.TempDir()
	if used, err := HasServerState(dir, slog.New(slog.DiscardHandler)); used || err != nil {
		t.Errorf("empty directory: got %v, %v", used, err)
	}
	cfg := testConfig(dir)
	cfg.Bootstrap = false
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := HasServerState(dir, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrLocked) {
		t.Errorf("in use: got %v, want ErrLocked", err)
	}
	id := s.ServerID()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if used, err := HasServerState(dir, slog.New(slog.DiscardHandler)); used || err != nil {
		t.Errorf("a server that was never taken in: got %v, %v", used, err)
	}
	c := openClient(t, dir, s)
	if c.ServerID() != id {
		t.Errorf("id: got %s, want %s", c.ServerID(), id)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	dir = t.TempDir()
	s = open(t, testConfig(dir))
	register(t, s, instance("web", "10.0.0.1"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if used, err := HasServerState(dir, slog.New(slog.DiscardHandler)); !used || err != nil {
		t.Errorf("a server: got %v, %v", used, err)
	}
	_, err = OpenClient(ClientConfig{Dir: dir, Logger: slog.New(slog.DiscardHandler), Forwarder: carry(nil)})
	if !errors.Is(err, ErrServerState) || !strings.Contains(err.Error(), "fluid-agent reset") {
		t.Errorf("client in a server's directory: got %v", err)
	}
	if err := Reset(dir); err != nil {
		t.Fatal(err)
	}
	c = openClient(t, dir, s)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Reset(dir); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "client*")); len(left) > 0 {
		t.Errorf("reset left %v", left)
	}
}
