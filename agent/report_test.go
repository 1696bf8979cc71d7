package agent_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fluid-sd/fluid/agent/api"
)

// instance returns what the agent shows of one instance.
func instance(t *testing.T, c *api.Client, service, id string) api.Instance {
	t.Helper()
	s, err := c.Service(t.Context(), service, api.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range s.Instances {
		if in.ID == id {
			return in
		}
	}
	t.Fatalf("%s has no instance %s: %+v", service, id, s.Instances)
	return api.Instance{}
}

// The agent of its node reports on a critical instance. The report survives a
// restart, and ends with the registration that it was made for.
func TestReport(t *testing.T) {
	cfg := testConfig(t)
	a := start(t, cfg)
	c := client(t, a, "")
	leading(t, c)
	add := func(ip, node string) {
		t.Helper()
		if _, err := c.Register(t.Context(), []api.App{{AppID: "web", Target: api.Target{IP: ip, Node: node}}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	add("10.0.0.1", "node1")
	add("10.0.0.2", "node2")
	add("10.0.0.3", "")
	const path = "/v1/services/web/instances/"
	for _, tc := range []struct {
		name, id, status string
		code             int
		text             string
	}{
		{"here", "10.0.0.1", "critical", 200, `"class":"critical"`},
		{"elsewhere", "10.0.0.2", "critical", 409, "is on node node2; ask the agent there"},
		{"nowhere", "10.0.0.3", "critical", 409, "is on no node"},
		{"unknown", "10.0.0.4", "critical", 404, "not registered"},
	} {
		if code, text := put(t, a, "PUT", path+tc.id+"/status", `{"status":"`+tc.status+`","reason":"disk"}`); code != tc.code || !strings.Contains(text, tc.text) {
			t.Errorf("%s: got %d %s", tc.name, code, text)
		}
	}
	if in := instance(t, c, "web", "10.0.0.1"); in.Status != "critical" || in.Answered || in.Tier != "raft" {
		t.Errorf("reported: got %+v", in)
	}
	stop(t, a)
	a = start(t, cfg)
	c = client(t, a, "")
	leading(t, c)
	if in := instance(t, c, "web", "10.0.0.1"); in.Status != "critical" {
		t.Errorf("after a restart: got %+v", in)
	}
	if code, text := put(t, a, "PUT", path+"10.0.0.1/status", `{"status":"passing"}`); code != 200 {
		t.Errorf("recovered: got %d %s", code, text)
	}
	if in := instance(t, c, "web", "10.0.0.1"); in.Status != "passing" || !in.Answered {
		t.Errorf("recovered: got %+v", in)
	}
	if code, text := put(t, a, "PUT", path+"10.0.0.1/status", `{"status":"maintenance"}`); code != 200 {
		t.Errorf("maintenance: got %d %s", code, text)
	}
	if _, err := c.Register(t.Context(), []api.App{{AppID: "web", Target: api.Target{IP: "10.0.0.1", Node: "node1", Zone: "z1"}}}, nil); err != nil {
		t.Fatal(err)
	}
	if in := instance(t, c, "web", "10.0.0.1"); in.Status != "passing" || !in.Answered {
		t.Errorf("registered anew: got %+v", in)
	}
	eventually(t, "the withdrawal of a report on what is gone", func() bool {
		nodes, err := c.Nodes(t.Context())
		return err == nil && len(nodes) == 1 && nodes[0].Instances == 0
	})
}

// Reasons are cut, and records that would grow too long are refused: an agent
// that took them starts again.
func TestReportLong(t *testing.T) {
	cfg := testConfig(t)
	a := start(t, cfg)
	c := client(t, a, "")
	leading(t, c)
	if _, err := c.Register(t.Context(), []api.App{{AppID: "web", Target: api.Target{IP: "10.0.0.1", Node: "node1"}}}, nil); err != nil {
		t.Fatal(err)
	}
	const path = "/v1/services/"
	body := `{"status":"critical","reason":"x` + strings.Repeat("😀", 255) + `"}`
	if code, text := put(t, a, "PUT", path+"web/instances/10.0.0.1/status", body); code != 200 {
		t.Errorf("a long reason: got %d %s", code, text)
	}
	const full = 512 // bytes of a value of metadata
	taken, refused := 0, 0
	for n := 440; n < 500; n++ { // with the first, about as long as a record may be
		id := fmt.Sprintf("i%d", n)
		meta := fmt.Sprintf(`{"ip":"10.0.0.2","meta":{"a":%q,"b":%q}}`, strings.Repeat("a", full), strings.Repeat("b", n))
		switch code, text := put(t, a, "PUT", path+"db/instances/"+id, meta); code {
		case 201:
			taken++
			if code, text := put(t, a, "PUT", path+"db/instances/"+id+"/status", `{"status":"critical"}`); code != 200 {
				t.Errorf("%d bytes have no room for a status: got %d %s", n, code, text)
			}
		case 413:
			refused++
		default:
			t.Fatalf("%d bytes: got %d %s", n, code, text)
		}
	}
	if taken == 0 || refused == 0 {
		t.Errorf("%d were taken, %d refused", taken, refused)
	}
	stop(t, a)
	c = client(t, start(t, cfg), "")
	leading(t, c)
	if in := instance(t, c, "web", "10.0.0.1"); in.Status != "critical" {
		t.Errorf("after a restart: got %+v", in)
	}
}

// A node has the addresses that its agent tells others, and loopback only for
// want of another.
func TestNodeAddresses(t *testing.T) {
	for _, tc := range []struct{ name, advertise, want string }{
		{"loopback", "", "127.0.0.1"},
		{"advertised", "192.0.2.7:11000", "192.0.2.7"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.Raft.Advertise = tc.advertise
			c := client(t, start(t, cfg), "")
			eventually(t, "the addresses of the node", func() bool {
				nodes, err := c.Nodes(t.Context())
				return err == nil && len(nodes) == 1 && strings.Join(nodes[0].Addrs, " ") == tc.want
			})
		})
	}
}
