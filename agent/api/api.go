package api

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Writer commits changes. Every method blocks until the outcome is known or
// ctx ends, and returns an error that wraps a sentinel of package store or a
// *record.FieldError.
type Writer interface {
	// Register adds or changes instances, all or none; one result for each.
	// The instances are normalized and valid.
	Register(ctx context.Context, m store.Meta, ins []record.Instance) ([]store.Result, error)
	// Deregister removes a service with all its instances.
	Deregister(ctx context.Context, m store.Meta, service string) (store.Result, error)
	// DeregisterInstance removes one instance; id is canonical.
	DeregisterInstance(ctx context.Context, m store.Meta, service, id string) (store.Result, error)
	// PutService sets the class and the settings of a service.
	PutService(ctx context.Context, m store.Meta, s record.Service) (store.Result, error)
	// PutOverlay adds an overlay; DeleteOverlay lifts it.
	PutOverlay(ctx context.Context, m store.Meta, o record.Overlay) (store.Result, error)
	DeleteOverlay(ctx context.Context, m store.Meta, id string) (store.Result, error)
}

// View is what this agent would answer from: committed state, gossip and
// overlays merged. No method blocks for long.
type View interface {
	// Status says how current the view is.
	Status() ViewStatus
	// Names returns at most limit names of services that exist, greater than
	// after, sorted.
	Names(after string, limit int) []string
	// Service returns the view of a service and what became of each of its
	// instances. It reports false for a service that does not exist.
	Service(name string) (*catalog.Service, []catalog.Verdict, bool)
}

// ViewStatus says how current a View is.
type ViewStatus struct {
	Position record.Position // committed position applied
	Synced   bool            // state has been restored; without it nothing may be answered
	Stale    bool            // nobody can say whether it is current
	Age      time.Duration   // since it was last known to be current
}

// Cluster is the part of consensus that other servers and operators ask for.
// Methods that only the leader can do return a *store.NotLeaderError elsewhere.
type Cluster interface {
	// Join takes a server in; leader only.
	Join(ctx context.Context, m store.Meta, req store.JoinRequest) (store.JoinReply, error)
	// Remove removes a server by its random id; leader only.
	Remove(ctx context.Context, m store.Meta, id string) error
	// Transfer hands leadership over; leader only.
	Transfer(ctx context.Context, id string) error
	// Serve answers a write or read that another server forwarded.
	Serve(ctx context.Context, request []byte) (reply []byte, err error)
	// Linearizable returns a state that holds every write acknowledged before.
	Linearizable(ctx context.Context) (store.State, error)
	// Changed returns a channel that is closed once the applied position is
	// beyond after.
	Changed(after record.Position) <-chan struct{}
	// Restore replaces what is committed by a snapshot; leader only.
	Restore(ctx context.Context, m store.Meta, r io.Reader, least uint64) (record.Position, error)
	// ForgetMember takes a DNS member off the roster.
	ForgetMember(ctx context.Context, m store.Meta, id string) error
	// WaitApplied blocks until a position is applied here.
	WaitApplied(ctx context.Context, pos record.Position) error
}

// Config is what a Handler asks and how it guards itself.
type Config struct {
	Writer  Writer
	View    View
	Cluster Cluster
	// Ephemeral takes tier-2 writes.
	Ephemeral Ephemeral
	// Checks watches the health of instances on this node.
	Checks Checks
	// Mesh is the agent's place in the gossip mesh.
	Mesh Mesh
	// State returns what this agent has applied.
	State func() store.State
	// News returns the services that gossip has changed since a version that it
	// returned, the version now, and a channel that is closed once there is a
	// later one. It reports false for a version that it does not know any more;
	// the empty one is now.
	News func(since string) (services []string, now string, ok bool, changed <-chan struct{})
	// Raft describes consensus.
	Raft func() Raft
	// Follow takes a connection on which a client wants to be told what is
	// committed; it owns it and does not block. Nil: this agent is a client.
	Follow func(net.Conn)
	// Report takes in what a client tells, and answers how the cluster is.
	Report func(ClientReport) (ClusterInfo, error)
	// Everywhere blocks until every DNS member of the cluster has applied pos,
	// or ctx ends, and says which have not.
	Everywhere func(ctx context.Context, pos record.Position) Spread
	// Local blocks until every DNS member at this agent's own socket has applied
	// pos, or ctx ends, and lists them.
	Local func(ctx context.Context, pos record.Position) Applied
	// Members returns the roster of DNS members, and those at this agent.
	Members func() []Member
	// Zones returns the zones that the DNS members at this agent serve.
	Zones func() []string
	// Ready returns why the agent is not ready, and what an operator should
	// look at besides, by check.
	Ready func() (reasons []string, checks map[string]string)
	// Metrics is where the handler's own metrics are registered; Gatherer is
	// what /metrics shows.
	Metrics  prometheus.Registerer
	Gatherer prometheus.Gatherer
	Node     string // name of this node, default of instances with checks
	Version  string
	// Token guards everything but /healthz and /readyz. Empty: open.
	Token string
	// JoinSecret admits servers, besides Token, to what servers ask of each
	// other. Empty, with an empty Token: anyone who can connect.
	JoinSecret string
	// Stopping is closed when the agent begins to stop: requests that wait for
	// a change are answered then.
	Stopping <-chan struct{}
	Log      *slog.Logger
	Now      func() time.Time
}

// maxBody bounds the body of every request, in bytes: a batch of 512 KiB takes
// several times as much as JSON.
const maxBody = 4 << 20

// server holds the operations; each method that ends in Op registers some.
type server struct {
	Config
	huma huma.API
}

// New returns the handler of an agent's HTTP interface.
func New(cfg Config) http.Handler {
	mux := http.NewServeMux()
	s := &server{Config: cfg, huma: humago.New(mux, openAPI(cfg.Version))}
	s.appOps()
	s.serviceOps()
	s.overlayOps()
	s.raftOps()
	s.peerOps(mux)
	s.followOps(mux)
	s.streamOps(mux)
	s.snapshotOps(mux)
	s.memberOps()
	s.ephemeralOps()
	s.meshOps()
	s.explainOps()
	s.healthOps(mux)
	mux.HandleFunc("/", notFound(mux))
	return s.guard(mux)
}

// openAPI describes the interface. huma's defaults would add "$schema" to
// every body and a page that loads scripts from elsewhere.
func openAPI(version string) huma.Config {
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:   "Fluid agent",
				Version: version,
				Description: "Registers applications and shows what DNS answers. Every write is answered with " +
					"X-Fluid-Index, every read with X-Fluid-Index, X-Fluid-Stale and Age. Errors are RFC 9457 problem details.",
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"token": {Type: "http", Scheme: "bearer", Description: "The operator token of FLUID_TOKEN_FILE, where one is set."},
				},
			},
			Security: []map[string][]string{{"token": {}}, {}},
		},
		OpenAPIPath:                  "/openapi",
		Formats:                      huma.DefaultFormats,
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	}
}

// op fills in what all operations have in common.
func op(method, path, id, summary, tag string, errs ...int) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{tag},
		MaxBodyBytes: maxBody,
		Errors:       append([]int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusServiceUnavailable}, errs...),
	}
}

// WriteHeaders holds the headers of every write.
type WriteHeaders struct {
	Index      uint64 `header:"X-Fluid-Index" doc:"Raft index of the write."`
	Generation uint64 `header:"X-Fluid-Generation" doc:"Generation that the index counts in."`
}

func writtenAt(pos record.Position) WriteHeaders {
	return WriteHeaders{Index: pos.Index, Generation: pos.Generation}
}

// ReadHeaders holds the headers of every read.
type ReadHeaders struct {
	Index      uint64 `header:"X-Fluid-Index" doc:"Raft index that this agent has applied."`
	Generation uint64 `header:"X-Fluid-Generation" doc:"Generation that the index counts in."`
	Stale      bool   `header:"X-Fluid-Stale" doc:"The agent cannot say whether this is current."`
	Age        int64  `header:"Age" doc:"Seconds since this was last known to be current."`
}

// WriteParams holds the parameters of every write. It is exported because huma
// fills in exported fields only; so are the types below.
type WriteParams struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"128" doc:"A repeated write with this key returns the first one's result, for at least 15 minutes."`
	IfMatch        string `header:"If-Match" doc:"Index that the thing to change must have; 0: it must not exist yet."`
	Wait           string `query:"wait" enum:"committed,everywhere" default:"committed" doc:"everywhere: until every DNS member has applied it."`
	Timeout        string `query:"timeout" default:"5s" doc:"How long to wait for everywhere, a Go duration."`

	meta    store.Meta
	timeout time.Duration
}

// Resolve checks the parameters and fills in who asks.
func (in *WriteParams) Resolve(ctx huma.Context) []error {
	who := callerOf(ctx.Context())
	in.meta = store.Meta{Principal: who.principal, Remote: who.remote, IdempotencyKey: in.IdempotencyKey}
	var errs []error
	if in.IfMatch != "" {
		n, err := parseIndex(in.IfMatch)
		if err != nil {
			errs = append(errs, &huma.ErrorDetail{Location: "header.If-Match", Message: err.Error(), Value: in.IfMatch})
		}
		in.meta.IfMatch = &n
	}
	if in.Timeout != "" {
		d, err := time.ParseDuration(in.Timeout)
		in.timeout = d
		if err != nil || d <= 0 || d > time.Minute {
			errs = append(errs, &huma.ErrorDetail{Location: "query.timeout", Message: `is not usable; use a duration from 1ms to 1m, such as "5s"`, Value: in.Timeout})
		}
	}
	return errs
}

// PageParams holds the parameters of every list.
type PageParams struct {
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Rows of one page."`
	After string `query:"after" doc:"The next of the page before."`
}
