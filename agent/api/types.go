package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Target is where an instance is reached and how it is described: the part
// that every kind of registration has in common.
type Target struct {
	ID       string                `json:"id,omitempty" doc:"Unique in the service: an address, ADDRESS-PORT or a label. Default: the address, with the port if there is one." example:"10.0.0.9"`
	IP       string                `json:"ip,omitempty" doc:"An IPv4 or IPv6 address. May be left out where ips or host is given." example:"10.0.0.9"`
	IPs      []string              `json:"ips,omitempty" nullable:"false" doc:"Addresses, at most 16."`
	Host     string                `json:"host,omitempty" doc:"A host name instead of addresses, answered as CNAME. Sole instance of its service." example:"db.example.org"`
	Port     uint16                `json:"port,omitempty" maximum:"65535" example:"8080"`
	Ports    map[string]PortNumber `json:"ports,omitempty" doc:"Named ports (RFC 6335); a number, or NUMBER/udp."`
	Node     string                `json:"node,omitempty" doc:"Node the instance runs on; without one it is external." example:"host-1"`
	Tags     []string              `json:"tags,omitempty" nullable:"false" doc:"Labels."`
	Meta     map[string]string     `json:"meta,omitempty" doc:"At most 64 pairs."`
	Weight   *uint16               `json:"weight,omitempty" maximum:"65535" doc:"Share of the answers. Default: 1."`
	Priority uint16                `json:"priority,omitempty" maximum:"65535" doc:"Lower is used first (RFC 2782)."`
	Zone     string                `json:"zone,omitempty" doc:"Failure domain, a label."`
	TTL      string                `json:"ttl,omitempty" doc:"Of its answers, a Go duration in whole seconds." example:"5s"`
	Expires  string                `json:"expires,omitempty" doc:"Removed after this Go duration." example:"10m"`
	Checks   []Check               `json:"checks,omitempty" nullable:"false" doc:"Health checks run by the agent of its node."`
}

// App is the body of POST /v1/apps: a critical registration.
type App struct {
	AppID string `json:"appId" minLength:"1" doc:"Name of the service, a lower-case label." example:"checkout"`
	Target
}

// PortNumber is a port in JSON: a number for TCP, "NUMBER/udp" or "NUMBER/tcp"
// otherwise.
type PortNumber struct {
	Number uint16
	Proto  record.Proto
}

// Schema describes the two forms.
func (PortNumber) Schema(huma.Registry) *huma.Schema {
	lowest, highest := 1.0, 65535.0
	return &huma.Schema{OneOf: []*huma.Schema{
		{Type: huma.TypeInteger, Minimum: &lowest, Maximum: &highest},
		{Type: huma.TypeString, Pattern: `^[1-9][0-9]{0,4}(/(tcp|udp))?$`},
	}}
}

// UnmarshalJSON reads either form.
func (p *PortNumber) UnmarshalJSON(b []byte) error {
	s := string(b)
	if bytes.HasPrefix(b, []byte(`"`)) {
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
	}
	num, proto, _ := strings.Cut(s, "/")
	n, err := strconv.ParseUint(num, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not a port", s)
	}
	p.Number, p.Proto = uint16(n), record.TCP
	if proto == "udp" {
		p.Proto = record.UDP
	} else if proto != "" && proto != "tcp" {
		return fmt.Errorf("%q is not a protocol", proto)
	}
	return nil
}

// MarshalJSON writes a number for TCP and "NUMBER/udp" for UDP.
func (p PortNumber) MarshalJSON() ([]byte, error) {
	if p.Proto == record.UDP {
		return fmt.Appendf(nil, `"%d/udp"`, p.Number), nil
	}
	return strconv.AppendUint(nil, uint64(p.Number), 10), nil
}

// Registered is the answer to a registration.
type Registered struct {
	Service    string `json:"service"`
	ID         string `json:"id,omitempty"`
	Class      string `json:"class" enum:"critical,ephemeral"`
	Generation uint64 `json:"generation" doc:"With index: the committed position of the write."`
	Index      uint64 `json:"index"`
	*Spread
}

// Spread says how far a write has got, where that was asked for with
// ?wait=everywhere.
type Spread struct {
	Everywhere bool     `json:"everywhere" doc:"Every DNS member has applied it."`
	Lagging    []string `json:"lagging" nullable:"false" doc:"Members that have not, by name."`
	ClientTTL  string   `json:"clientTTL" doc:"How long caches behind the members can still hold the old answer."`
}

// Removed is the answer to a deregistration.
type Removed struct {
	Service    string `json:"service"`
	ID         string `json:"id,omitempty"`
	Generation uint64 `json:"generation"`
	Index      uint64 `json:"index"`
	*Spread
}

// Instance is one instance in the view of a service.
type Instance struct {
	ID        string                `json:"id"`
	Label     string                `json:"label" doc:"Host label: LABEL.SERVICE.ZONE is its name in DNS."`
	Node      string                `json:"node"`
	IPs       []string              `json:"ips" nullable:"false"`
	Host      string                `json:"host,omitempty"`
	Port      uint16                `json:"port"`
	Ports     map[string]PortNumber `json:"ports"`
	Tags      []string              `json:"tags" nullable:"false"`
	Meta      map[string]string     `json:"meta"`
	Weight    uint16                `json:"weight" doc:"With overlays applied."`
	Priority  uint16                `json:"priority"`
	Zone      string                `json:"zone"`
	TTL       string                `json:"ttl" doc:"Empty: as the service or the zone says."`
	Status    string                `json:"status" enum:"passing,warning,critical,draining,maintenance"`
	Tier      string                `json:"tier" enum:"raft,gossip"`
	Index     uint64                `json:"index,omitempty" doc:"Of its last change, in tier raft."`
	Version   string                `json:"version,omitempty" doc:"Of its last change, in tier gossip."`
	ExpiresAt string                `json:"expiresAt,omitempty" format:"date-time"`
	Answered  bool                  `json:"answered" doc:"DNS answers hold it."`
	Reason    string                `json:"reason,omitempty" doc:"Why DNS answers do not hold it."`
	Overlays  []string              `json:"overlays" nullable:"false" doc:"Ids of the overlays on it."`
}

// Service is the view of one service.
type Service struct {
	Service   string     `json:"service"`
	Class     string     `json:"class" enum:"critical,ephemeral,unknown"`
	Index     uint64     `json:"index" doc:"Of the last change to the service, its instances or their overlays."`
	Stale     bool       `json:"stale" doc:"The agent cannot say whether this is current."`
	Instances []Instance `json:"instances" nullable:"false"`
}

// ServiceSummary is one row of the list of services.
type ServiceSummary struct {
	Service       string   `json:"service"`
	Class         string   `json:"class" enum:"critical,ephemeral,unknown"`
	Index         uint64   `json:"index"`
	InstanceCount int      `json:"instanceCount"`
	PassingCount  int      `json:"passingCount" doc:"Instances with status passing that DNS answers hold."`
	Tags          []string `json:"tags" nullable:"false"`
}

// ServiceList is a page of services.
type ServiceList struct {
	Services []ServiceSummary `json:"services" nullable:"false"`
	Next     string           `json:"next" doc:"Pass as after for the next page; empty on the last."`
}

// AppSummary is one row of the list of apps.
type AppSummary struct {
	AppID string `json:"appId"`
	ServiceSummary
}

// AppList is a page of apps.
type AppList struct {
	Apps []AppSummary `json:"apps" nullable:"false"`
	Next string       `json:"next" doc:"Pass as after for the next page; empty on the last."`
}

// ServiceConfig is what is committed about a service as a whole.
type ServiceConfig struct {
	Class       string  `json:"class,omitempty" enum:"critical,ephemeral" doc:"Default: critical."`
	TTL         string  `json:"ttl,omitempty" example:"5s" doc:"Empty: as the zone says."`
	NegativeTTL string  `json:"negativeTTL,omitempty" example:"2s" doc:"Empty: as the zone says."`
	ServeStale  string  `json:"serveStale,omitempty" example:"forever" doc:"How long answers go on without news: a duration or forever. Empty: as the zone says."`
	AnswerLimit uint16  `json:"answerLimit,omitempty" maximum:"65535" doc:"Instances in one answer; 0: all."`
	Guard       *bool   `json:"guard,omitempty" doc:"Keep the last known good instances when most fail at once. Default: true."`
	Index       *uint64 `json:"index,omitempty" readOnly:"true" doc:"Of its last change."`
}

// Overlay is an operator's decision about a service, an instance or a node.
type Overlay struct {
	ID        string `json:"id,omitempty" readOnly:"true"`
	Kind      string `json:"kind" enum:"drain,deny,weight,allow"`
	Service   string `json:"service,omitempty"`
	Instance  string `json:"instance,omitempty" doc:"Id of an instance of service."`
	Node      string `json:"node,omitempty" doc:"A node instead of a service."`
	Weight    uint16 `json:"weight,omitempty" maximum:"65535" doc:"With kind weight."`
	Reason    string `json:"reason,omitempty"`
	Expires   string `json:"expires,omitempty" doc:"Lifted after this Go duration." example:"10m"`
	ExpiresAt string `json:"expiresAt,omitempty" readOnly:"true" format:"date-time"`
	Index     uint64 `json:"index,omitempty" readOnly:"true"`
}

// OverlayList is a page of overlays.
type OverlayList struct {
	Overlays []Overlay `json:"overlays" nullable:"false"`
	Next     string    `json:"next"`
}

// Placed is the answer to a new overlay.
type Placed struct {
	ID         string `json:"id"`
	Index      uint64 `json:"index"`
	Generation uint64 `json:"generation"`
	Spread
}

// Applied is how far the DNS members at one agent are: what agents tell each
// other.
type Applied struct {
	Members []AppliedMember `json:"members"`
}

// AppliedMember is one DNS member at one agent.
type AppliedMember struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Applied   bool   `json:"applied"` // the position asked about
	Connected bool   `json:"connected"`
	ClientTTL string `json:"clientTTL"`
}

// Member is one member, for GET /v1/members.
type Member struct {
	Name         string `json:"name"`
	ID           string `json:"id"`
	Addr         string `json:"addr"`
	Role         string `json:"role" enum:"agent,dns"`
	State        string `json:"state" enum:"alive,suspect,dead,left"`
	Zone         string `json:"zone"`
	Host         string `json:"host" doc:"Name of the agent at whose socket it is."`
	AppliedIndex uint64 `json:"appliedIndex"`
}

// MemberList is every member that this agent knows of.
type MemberList struct {
	Members []Member `json:"members" nullable:"false"`
	Next    string   `json:"next" doc:"Pass as after for the next page; empty on the last."`
}

// SnapshotInfo says what is in a snapshot.
type SnapshotInfo struct {
	Generation uint64 `json:"generation"`
	Index      uint64 `json:"index"`
	ClusterID  string `json:"clusterId"`
	Time       string `json:"time" doc:"Newest time that a leader stamped."`
	Services   int    `json:"services"`
	Instances  int    `json:"instances"`
	Entries    int    `json:"entries"`
	Hash       string `json:"hash"`
}

// Restored is the answer to a restore.
type Restored struct {
	Generation uint64 `json:"generation"`
	Index      uint64 `json:"index"`
}

// JoinRequest is how a server asks the leader to be taken in.
type JoinRequest struct {
	ID        string `json:"id" doc:"Random id of the server's data directory."`
	Name      string `json:"name" doc:"Its RAFT_ID."`
	Addr      string `json:"addr" doc:"HOST:PORT of its Raft, where the leader calls back."`
	HTTP      string `json:"http" doc:"Base URL of its HTTP interface."`
	Zone      string `json:"zone,omitempty"`
	Version   string `json:"version,omitempty"`
	Protocol  uint64 `json:"protocol" doc:"Greatest command type it understands."`
	ClusterID string `json:"clusterId,omitempty" doc:"Of the state it has; empty for none."`
	Auto      bool   `json:"auto,omitempty" doc:"Only if servers are wanted."`
}

// Joined is the answer to a JoinRequest.
type Joined struct {
	ClusterID string       `json:"clusterId"`
	Servers   []RaftServer `json:"servers" nullable:"false"`
}

// ServerRef names a server for POST /v1/raft/transfer and /v1/raft/remove.
type ServerRef struct {
	Server string `json:"server,omitempty" doc:"Its name or id. Empty, with transfer: the best one."`
}

// Raft is the state of consensus as this agent sees it.
type Raft struct {
	State        string       `json:"state" enum:"leader,follower,candidate,shutdown,client"`
	Term         uint64       `json:"term"`
	Generation   uint64       `json:"generation"`
	CommitIndex  uint64       `json:"commitIndex"`
	AppliedIndex uint64       `json:"appliedIndex"`
	ClusterID    string       `json:"clusterId"`
	Leader       RaftLeader   `json:"leader"`
	Servers      []RaftServer `json:"servers" nullable:"false"`
	Follows      string       `json:"follows,omitempty" doc:"HTTP address of the server that a client takes the committed state from."`
	Self         JoinRequest  `json:"self" doc:"What this agent sends to a cluster that it wants to join."`
	Time         time.Time    `json:"time" doc:"The clock of this agent."`
}

// RaftLeader names the leader; all fields are empty if none is known.
type RaftLeader struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Addr string `json:"addr"`
	HTTP string `json:"http"`
}

// RaftServer is one server of the configuration.
type RaftServer struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Addr     string `json:"addr"`
	HTTP     string `json:"http" doc:"Base URL of its HTTP interface."`
	Suffrage string `json:"suffrage" enum:"voter,nonvoter"`
	Leader   bool   `json:"leader"`
	Healthy  bool   `json:"healthy"`
}

// Health is the answer of /healthz and /readyz.
type Health struct {
	Status  string            `json:"status" enum:"ok,ready,not ready"`
	Reasons []string          `json:"reasons" nullable:"false" doc:"Why the agent is not ready, or what an operator should look at."`
	Checks  map[string]string `json:"checks,omitempty" doc:"With ?verbose."`
}
