package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/record"
)

const raftTag = "raft"

// Paths that servers ask of each other.
const (
	JoinPath     = "/v1/raft/join"
	ForwardPath  = "/v1/raft/forward"
	AppliedPath  = "/v1/raft/applied"
	WithdrawPath = "/v1/mesh/withdraw"
	EditPath     = "/v1/mesh/edit"
	FollowPath   = "/v1/raft/follow"
	ReportPath   = "/v1/raft/report"
)

// peerPaths are those that the join secret opens.
var peerPaths = []string{JoinPath, ForwardPath, AppliedPath, WithdrawPath, EditPath, FollowPath, ReportPath}

func (s *server) raftOps() {
	type output struct {
		ReadHeaders
		Body Raft
	}
	huma.Register(s.huma, op(http.MethodGet, "/v1/raft", "get-raft", "Show consensus", raftTag),
		func(context.Context, *struct{}) (*output, error) {
			st := s.View.Status()
			return &output{ReadHeaders: ReadHeaders{
				Index: st.Position.Index, Generation: st.Position.Generation, Stale: st.Stale, Age: int64(st.Age / time.Second),
			}, Body: s.Raft()}, nil
		})
	huma.Register(s.huma, op(http.MethodPost, JoinPath, "join-raft", "Take a server into the cluster", raftTag, http.StatusConflict), s.join)
	huma.Register(s.huma, op(http.MethodPost, "/v1/raft/transfer", "transfer-raft", "Hand leadership to another server", raftTag, http.StatusNotFound),
		func(ctx context.Context, in *serverRefInput) (*serverRefOutput, error) {
			id := in.Body.Server
			if sv, ok := s.find(id); ok {
				id = sv.ID
			}
			return s.led("/v1/raft/transfer", id, s.Cluster.Transfer(ctx, id))
		})
	huma.Register(s.huma, op(http.MethodPost, "/v1/raft/remove", "remove-raft", "Remove a server from the cluster", raftTag, http.StatusNotFound),
		func(ctx context.Context, in *serverRefInput) (*serverRefOutput, error) {
			if in.Body.Server == "" {
				return nil, toProblem(field("server", "", "is missing", "give the name or the id of the server"), "body")
			}
			sv, ok := s.find(in.Body.Server)
			if !ok {
				return nil, toProblem(fmt.Errorf("%w: no server is named %s", store.ErrNotFound, in.Body.Server), "")
			}
			who := callerOf(ctx)
			return s.led("/v1/raft/remove", sv.ID, s.Cluster.Remove(ctx, store.Meta{Principal: who.principal, Remote: who.remote}, sv.ID))
		})
}

type serverRefInput struct{ Body ServerRef }

type serverRefOutput struct{ Body ServerRef }

func (s *server) led(path, id string, err error) (*serverRefOutput, error) {
	if err != nil {
		return nil, s.elsewhere(path, err)
	}
	return &serverRefOutput{Body: ServerRef{Server: id}}, nil
}

func (s *server) find(nameOrID string) (RaftServer, bool) {
	for _, sv := range s.Raft().Servers {
		if nameOrID != "" && (sv.ID == nameOrID || sv.Name == nameOrID) {
			return sv, true
		}
	}
	return RaftServer{}, false
}

// elsewhere turns the error of an operation that only the leader can do into
// a redirect to the leader, where one is known.
func (s *server) elsewhere(path string, err error) error {
	var nl *store.NotLeaderError
	if errors.As(err, &nl) && nl.Leader.HTTP != "" {
		return huma.ErrorWithHeaders(&huma.ErrorModel{
			Type: "about:blank", Title: http.StatusText(http.StatusTemporaryRedirect), Status: http.StatusTemporaryRedirect,
			Detail: "ask the leader, " + nl.Leader.Name,
		}, http.Header{"Location": {nl.Leader.HTTP + path}})
	}
	return toProblem(err, "body")
}

// leader returns a *store.NotLeaderError that names the leader.
func (s *server) leader() error {
	l := s.Raft().Leader
	return &store.NotLeaderError{Leader: store.Server{ID: l.ID, Name: l.Name, Addr: l.Addr, HTTP: l.HTTP}}
}

type joinInput struct{ Body JoinRequest }

type joinOutput struct{ Body Joined }

func (s *server) join(ctx context.Context, in *joinInput) (*joinOutput, error) {
	b, who := in.Body, callerOf(ctx)
	reply, err := s.Cluster.Join(ctx, store.Meta{Principal: who.principal, Remote: who.remote}, store.JoinRequest{
		ServerInfo: store.ServerInfo{ID: b.ID, Name: b.Name, HTTP: b.HTTP, Zone: b.Zone, Version: b.Version, Protocol: b.Protocol},
		Addr:       b.Addr, ClusterID: b.ClusterID, Auto: b.Auto,
	})
	if err != nil {
		return nil, s.elsewhere(JoinPath, err)
	}
	out := &joinOutput{Body: Joined{ClusterID: reply.ClusterID, Servers: make([]RaftServer, len(reply.Servers))}}
	for i, sv := range reply.Servers {
		out.Body.Servers[i] = RaftServerOf(sv)
	}
	return out, nil
}

// RaftServerOf returns the JSON form of a server.
func RaftServerOf(sv store.Server) RaftServer {
	suffrage := "nonvoter"
	if sv.Voter {
		suffrage = "voter"
	}
	return RaftServer{
		ID: sv.ID, Name: sv.Name, Addr: sv.Addr, HTTP: sv.HTTP, Suffrage: suffrage, Leader: sv.Leader, Healthy: sv.Healthy,
	}
}

// maxForward bounds a forwarded request: a full log entry and its frame.
const maxForward = store.MaxEntry + 64<<10

// peerOps serves what is no part of the public interface: bytes whose meaning
// is package store's, and the applied positions of one agent's DNS servers.
func (s *server) peerOps(mux *http.ServeMux) {
	mux.HandleFunc("POST "+ForwardPath, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForward))
		if err != nil {
			writeProblem(w, fmt.Errorf("%w: forwarded request: %w", ErrInvalid, err))
			return
		}
		reply, err := s.Cluster.Serve(r.Context(), body)
		if err != nil {
			writeProblem(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(reply) // a server that left learns nothing, as it would anyway
	})
	mux.HandleFunc("POST "+WithdrawPath, s.withdraw)
	mux.HandleFunc("POST "+EditPath, s.edit)
	mux.HandleFunc("GET "+AppliedPath, func(w http.ResponseWriter, r *http.Request) {
		pos, err := record.ParsePosition(r.URL.Query().Get("position"))
		if err != nil {
			writeProblem(w, err)
			return
		}
		wait, err := time.ParseDuration(r.URL.Query().Get("timeout"))
		if err != nil || wait > time.Minute {
			writeProblem(w, field("timeout", r.URL.Query().Get("timeout"), "is not a duration", "use up to 1m"))
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), wait)
		defer cancel()
		writeJSON(w, http.StatusOK, s.Local(ctx, pos))
	})
}
