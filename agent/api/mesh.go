package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

const meshTag = "mesh"

// Mesh is the agent's place in the gossip mesh. Errors wrap ErrNoMesh where
// the agent is in none, or store.ErrConflict for a change that the key ring
// does not allow.
type Mesh interface {
	// Nodes lists the nodes whose agents write to the mesh, sorted by id.
	Nodes() []Node
	// Keys lists the keys of this member, the one that encrypts first.
	Keys() []Key
	// ChangeKeys changes the keys of this member, and in its key file if there is
	// one, and returns what they are then.
	ChangeKeys(change KeyChange, principal string) ([]Key, error)
	// KeysSaved reports whether the key file says what the keys are, so that a
	// restart keeps them.
	KeysSaved() bool
	// JoinMesh contacts members at HOST:PORT addresses and returns how many
	// answered. It enters the mesh again after LeaveMesh. It blocks until each
	// was tried or ctx ends.
	JoinMesh(ctx context.Context, addrs []string) (int, error)
	// LeaveMesh tells the others that this member goes: what it vouches for is
	// withdrawn at once. It blocks until they know or ctx ends.
	LeaveMesh(ctx context.Context) error
}

// Node is one node as its agent describes it, for GET /v1/nodes.
type Node struct {
	ID        string   `json:"id" doc:"Durable id of its agent in the mesh."`
	Name      string   `json:"name"`
	Addrs     []string `json:"addrs" nullable:"false"`
	Zone      string   `json:"zone"`
	Version   string   `json:"version"`
	State     string   `json:"state" enum:"attended,unattended,dead"`
	Since     string   `json:"since,omitempty" doc:"When the state began, RFC 3339."`
	Members   []string `json:"members" nullable:"false" doc:"Ids of the DNS members at its socket."`
	Instances int      `json:"instances" doc:"Records that it vouches for."`
	Bytes     int      `json:"bytes" doc:"Of these records."`
	Origin    string   `json:"origin" doc:"Id under which it writes."`
	Epoch     uint64   `json:"epoch"`
	Seq       uint64   `json:"seq" doc:"Up to which this agent knows all of its changes."`
	Behind    bool     `json:"behind" doc:"This agent knows that it misses some."`
	Skewed    bool     `json:"skewed" doc:"Its clock is more than 500 ms ahead."`
	Self      bool     `json:"self" doc:"It is the agent that was asked."`
}

// NodeList is every node that an agent knows of.
type NodeList struct {
	Nodes []Node `json:"nodes" nullable:"false"`
	Next  string `json:"next" doc:"Pass as after for the next page; empty on the last."`
}

// Key names a key of the mesh. Key material is never shown.
type Key struct {
	ID      string `json:"id"`
	Bits    int    `json:"bits"`
	Primary bool   `json:"primary" doc:"It encrypts; all decrypt."`
}

// KeyList is the key ring of a member.
type KeyList struct {
	Keys  []Key `json:"keys" nullable:"false"`
	Saved bool  `json:"saved" doc:"The key file says the same, so that a restart keeps them."`
}

// KeyChange is one step of a rotation.
type KeyChange struct {
	Action string `json:"action" enum:"add,use,remove"`
	Key    string `json:"key,omitempty" doc:"To add: 32, 48 or 64 hex digits. Never answered or logged."`
	ID     string `json:"id,omitempty" doc:"To use or remove: id of a key of the ring."`
}

// MeshJoin is the body of POST /v1/mesh/join.
type MeshJoin struct {
	Addrs []string `json:"addrs" minItems:"1" maxItems:"64" doc:"HOST:PORT of members."`
}

// MeshJoined is the answer of POST /v1/mesh/join.
type MeshJoined struct {
	Joined int `json:"joined" doc:"Members that answered."`
}

// MeshLeft is the answer of POST /v1/mesh/leave.
type MeshLeft struct {
	Left bool `json:"left"`
}

type (
	nodesOutput struct {
		ReadHeaders
		Body NodeList
	}
	keysOutput     struct{ Body KeyList }
	keyChangeInput struct {
		RawBody []byte `contentType:"application/json"`
	}
	meshJoinedOutput struct{ Body MeshJoined }
	meshLeftOutput   struct{ Body MeshLeft }
)

func (s *server) meshOps() {
	huma.Register(s.huma, op(http.MethodGet, "/v1/nodes", "list-nodes", "List the nodes that write to the mesh", meshTag),
		func(ctx context.Context, in *listInput) (*nodesOutput, error) {
			head, err := s.readable(ctx, &in.ReadParams)
			if err != nil {
				return nil, err
			}
			nodes, next := page(s.Mesh.Nodes(), func(n Node) string { return n.Origin }, &in.PageParams)
			return &nodesOutput{head, NodeList{nodes, next}}, nil
		})
	huma.Register(s.huma, op(http.MethodGet, "/v1/keys", "list-keys", "List the keys of this member by their ids", meshTag),
		func(context.Context, *struct{}) (*keysOutput, error) {
			return &keysOutput{KeyList{s.Mesh.Keys(), s.Mesh.KeysSaved()}}, nil
		})

	change := op(http.MethodPost, "/v1/keys", "change-keys", "Add, use or remove a key of this member", meshTag, http.StatusConflict)
	change.Description = "To rotate: add the new key at every member, use it at every member, remove the old one at every member. " +
		"The change goes into the agent's key file, if it has one (GOSSIP_KEY_HEX_FILE); a DNS server that shares the file follows it. " +
		"Else it lasts until the agent restarts: the answer says whether it is saved."
	schema := s.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[KeyChange](), true, "")
	change.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}
	change.SkipValidateBody = true // huma's errors repeat what is in the body
	huma.Register(s.huma, change, s.changeKeys)

	huma.Register(s.huma, op(http.MethodPost, "/v1/mesh/join", "join-mesh", "Contact members of the mesh", meshTag, http.StatusConflict),
		func(ctx context.Context, in *struct{ Body MeshJoin }) (*meshJoinedOutput, error) {
			for i, addr := range in.Body.Addrs {
				if _, _, err := net.SplitHostPort(addr); err != nil {
					return nil, toProblem(field("addrs["+strconv.Itoa(i)+"]", addr, "is not an address", "use HOST:PORT, such as 10.0.0.2:7946"), "body")
				}
			}
			n, err := s.Mesh.JoinMesh(ctx, in.Body.Addrs)
			if err != nil {
				return nil, toProblem(err, "")
			}
			return &meshJoinedOutput{MeshJoined{n}}, nil
		})
	huma.Register(s.huma, op(http.MethodPost, "/v1/mesh/leave", "leave-mesh", "Leave the mesh; what this agent vouches for is withdrawn", meshTag, http.StatusConflict),
		func(ctx context.Context, _ *struct{}) (*meshLeftOutput, error) {
			if err := s.Mesh.LeaveMesh(ctx); err != nil {
				return nil, toProblem(err, "")
			}
			return &meshLeftOutput{MeshLeft{true}}, nil
		})
}

func (s *server) changeKeys(ctx context.Context, in *keyChangeInput) (*keysOutput, error) {
	var b KeyChange
	dec := json.NewDecoder(bytes.NewReader(in.RawBody))
	dec.DisallowUnknownFields()
	if dec.Decode(&b) != nil { // its error may repeat the key
		return nil, toProblem(fmt.Errorf(`%w: the body is not a change of keys; use {"action":"add","key":HEX} or {"action":"use","id":ID}`, ErrInvalid), "")
	}
	var err error
	switch {
	case b.Action != "add" && b.Action != "use" && b.Action != "remove":
		err = field("action", "", "is not a choice", "use add, use or remove")
	case b.Action == "add" && b.Key == "":
		err = field("key", "", "is missing", "give a key of 32, 48 or 64 hex digits: openssl rand -hex 32")
	case b.Action == "add" && b.ID != "":
		err = field("id", "", "is not for adding", "leave it out; the answer names the key")
	case b.Action != "add" && b.Key != "":
		err = field("key", "", "is only for adding", "name the key by its id")
	case b.Action != "add" && b.ID == "":
		err = field("id", "", "is missing", "give the id of a key; GET /v1/keys lists them")
	}
	if err != nil {
		return nil, toProblem(err, "body")
	}
	keys, err := s.Mesh.ChangeKeys(b, callerOf(ctx).principal)
	if err != nil {
		return nil, toProblem(err, "body")
	}
	return &keysOutput{KeyList{keys, s.Mesh.KeysSaved()}}, nil
}

// Nodes returns the nodes that write to the mesh.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	return pages(func(q url.Values) ([]Node, string, error) {
		var out NodeList
		err := c.do(ctx, http.MethodGet, "/v1/nodes", q, nil, nil, &out)
		return out.Nodes, out.Next, err
	})
}

// Keys returns the keys of the agent's member, by their ids.
func (c *Client) Keys(ctx context.Context) ([]Key, error) {
	var out KeyList
	err := c.do(ctx, http.MethodGet, "/v1/keys", nil, nil, nil, &out)
	return out.Keys, err
}

// ChangeKeys changes the keys of the agent's member and returns what they are.
func (c *Client) ChangeKeys(ctx context.Context, change KeyChange) ([]Key, error) {
	var out KeyList
	err := c.do(ctx, http.MethodPost, "/v1/keys", nil, nil, change, &out)
	return out.Keys, err
}

// JoinMesh makes the agent contact members and returns how many answered.
func (c *Client) JoinMesh(ctx context.Context, addrs []string) (int, error) {
	var out MeshJoined
	err := c.do(ctx, http.MethodPost, "/v1/mesh/join", nil, nil, MeshJoin{addrs}, &out)
	return out.Joined, err
}

// LeaveMesh makes the agent leave the mesh.
func (c *Client) LeaveMesh(ctx context.Context) error {
	var out MeshLeft
	return c.do(ctx, http.MethodPost, "/v1/mesh/leave", nil, nil, nil, &out)
}
