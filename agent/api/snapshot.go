package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fluid-sd/fluid/agent/store"
)

// snapshotPath is where a snapshot is read from and written to.
const snapshotPath = "/v1/snapshot"

// maxSnapshot bounds a snapshot in bytes.
const maxSnapshot = 1 << 30

// snapshotOps registers backup and restore, which are streams of bytes.
func (s *server) snapshotOps(mux *http.ServeMux) {
	binary := map[string]*huma.MediaType{"application/octet-stream": {}}
	doc := s.huma.OpenAPI()
	doc.AddOperation(&huma.Operation{
		OperationID: "save-snapshot", Method: http.MethodGet, Path: snapshotPath, Summary: "Back up what is committed", Tags: []string{raftTag},
		Description: "Holds every write acknowledged before, and the cluster's private key: keep it as you keep the key of a certificate authority.",
		Responses:   map[string]*huma.Response{"200": {Description: "A snapshot", Content: binary}, "307": {Description: "Ask the leader"}, "503": {Description: "No leader"}},
	})
	doc.AddOperation(&huma.Operation{
		OperationID: "restore-snapshot", Method: http.MethodPost, Path: snapshotPath, Summary: "Replace what is committed by a snapshot", Tags: []string{raftTag},
		Parameters:  []*huma.Param{{Name: "least", In: "query", Schema: &huma.Schema{Type: huma.TypeInteger}, Description: "Generation that the new one must reach at least."}},
		RequestBody: &huma.RequestBody{Required: true, Content: binary},
		Responses:   map[string]*huma.Response{"200": {Description: "Restored"}, "307": {Description: "Ask the leader"}, "400": {Description: "No whole snapshot"}},
	})
	mux.HandleFunc("GET "+snapshotPath, s.saveSnapshot)
	mux.HandleFunc("POST "+snapshotPath, s.restoreSnapshot)
}

func (s *server) saveSnapshot(w http.ResponseWriter, r *http.Request) {
	st, err := s.Cluster.Linearizable(r.Context())
	if err != nil {
		writeProblem(w, err)
		return
	}
	if !st.Whole() { // a client's, without the key
		writeProblem(w, s.elsewhere(r.URL.RequestURI(), fmt.Errorf("%w; its servers have what a snapshot holds: %w", ErrNotServer, s.leader())))
		return
	}
	pos := st.Position()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Fluid-Index", strconv.FormatUint(pos.Index, 10))
	w.Header().Set("X-Fluid-Generation", strconv.FormatUint(pos.Generation, 10))
	if err := st.WriteSnapshot(w); err != nil {
		// The status is out; cutting the connection is what tells the client,
		// and the checksum of the last frame what tells everybody else.
		panic(http.ErrAbortHandler)
	}
}

func (s *server) restoreSnapshot(w http.ResponseWriter, r *http.Request) {
	least := uint64(0)
	if q := r.URL.Query().Get("least"); q != "" {
		var err error
		if least, err = strconv.ParseUint(q, 10, 64); err != nil {
			writeProblem(w, field("least", q, "is not a generation", "use a whole number"))
			return
		}
	}
	who := callerOf(r.Context())
	body := http.MaxBytesReader(w, r.Body, maxSnapshot)
	pos, err := s.Cluster.Restore(r.Context(), store.Meta{Principal: who.principal, Remote: who.remote}, body, least)
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &big):
		writeProblem(w, fmt.Errorf("%w: the snapshot exceeds %d bytes", store.ErrTooLarge, maxSnapshot))
	case err != nil:
		writeProblem(w, s.elsewhere(r.URL.RequestURI(), err))
	default:
		w.Header().Set("X-Fluid-Index", strconv.FormatUint(pos.Index, 10))
		w.Header().Set("X-Fluid-Generation", strconv.FormatUint(pos.Generation, 10))
		writeJSON(w, http.StatusOK, Restored{Generation: pos.Generation, Index: pos.Index})
	}
}

// SaveSnapshot returns a snapshot of what is committed.
func (c *Client) SaveSnapshot(ctx context.Context) ([]byte, error) {
	target := c.base + snapshotPath
	for hop := 0; ; hop++ {
		resp, data, err := c.once(ctx, http.MethodGet, target, http.Header{}, nil)
		switch {
		case err != nil:
			return nil, err
		case resp.StatusCode == http.StatusOK:
			return data, nil
		case resp.StatusCode != http.StatusTemporaryRedirect || hop == maxHops:
			return nil, problemOf(resp, data)
		}
		loc, err := resp.Location()
		if err != nil {
			return nil, fmt.Errorf("redirect of %s: %w", target, err)
		}
		target = loc.String()
	}
}

// RestoreSnapshot replaces what is committed by a snapshot.
func (c *Client) RestoreSnapshot(ctx context.Context, snapshot []byte, least uint64) (Restored, error) {
	var out Restored
	h := http.Header{"Content-Type": {"application/octet-stream"}}
	err := c.send(ctx, http.MethodPost, c.base+snapshotPath+"?least="+strconv.FormatUint(least, 10), h, snapshot, &out)
	return out, err
}

// InspectSnapshot reads a whole snapshot, checks it, and says what is in it.
func InspectSnapshot(r io.Reader) (SnapshotInfo, error) {
	info, err := store.ReadSnapshotInfo(r)
	if err != nil {
		return SnapshotInfo{}, err
	}
	return SnapshotInfo{
		Generation: info.Position.Generation, Index: info.Position.Index, ClusterID: info.ClusterID,
		Time: info.Time.Format("2006-01-02T15:04:05Z07:00"), Services: info.Services, Instances: info.Instances,
		Entries: info.Entries, Hash: strconv.FormatUint(info.Hash, 16),
	}, nil
}

type membersOutput struct {
	ReadHeaders
	Body MemberList
}

// memberOps registers what is known of members.
func (s *server) memberOps() {
	huma.Register(s.huma, op(http.MethodGet, "/v1/members", "list-members", "List agents and DNS members", "members"),
		func(ctx context.Context, in *listInput) (*membersOutput, error) {
			head, err := s.readable(ctx, &in.ReadParams)
			if err != nil {
				return nil, err
			}
			members, next := page(s.Members(), func(m Member) string { return m.Role + "/" + m.ID }, &in.PageParams)
			return &membersOutput{ReadHeaders: head, Body: MemberList{members, next}}, nil
		})
	huma.Register(s.huma, op(http.MethodDelete, "/v1/members/{id}", "forget-member", "Take a DNS member that will not come back off the roster",
		"members", http.StatusNotFound), func(ctx context.Context, in *struct {
		ID string `path:"id" doc:"Durable id of the member."`
	},
	) (*serverRefOutput, error) {
		who := callerOf(ctx)
		if err := s.Cluster.ForgetMember(ctx, store.Meta{Principal: who.principal, Remote: who.remote}, in.ID); err != nil {
			return nil, toProblem(err, "path")
		}
		return &serverRefOutput{Body: ServerRef{Server: in.ID}}, nil
	})
}

// Members returns the agents and DNS members.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	return pages(func(q url.Values) ([]Member, string, error) {
		var out MemberList
		err := c.do(ctx, http.MethodGet, "/v1/members", q, nil, nil, &out)
		return out.Members, out.Next, err
	})
}

// ForgetMember takes a DNS member off the roster.
func (c *Client) ForgetMember(ctx context.Context, id string) error {
	var out ServerRef
	return c.do(ctx, http.MethodDelete, "/v1/members/"+id, nil, nil, nil, &out)
}
