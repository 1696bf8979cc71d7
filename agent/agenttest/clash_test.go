package agenttest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// machineMAC is the hardware address of a machine on the wire between two.
func machineMAC(i int) string { return fmt.Sprintf("02:00:00:00:66:%02x", i) }

// wire joins two machines by a cable, as 10.66.0.1 and 10.66.0.2.
func wire(t *testing.T) (ms [2]*machine) {
	t.Helper()
	ms[0], ms[1] = newMachine(t), newMachine(t)
	must := func(i int, line string) {
		t.Helper()
		if out, ok := ms[i].try(line); !ok {
			t.Skipf("%s: %s", line, out)
		}
	}
	must(0, fmt.Sprintf("ip link add eth0 address %s type veth peer name eth0 address %s netns %d",
		machineMAC(1), machineMAC(2), ms[1].holder.cmd.Process.Pid))
	for i := range ms {
		must(i, fmt.Sprintf("ip addr add 10.66.0.%d/24 dev eth0 && ip link set eth0 up", i+1))
	}
	connect(t, ms, true)
	return ms
}

// connect makes what the machines send each other arrive, or vanish without a
// word.
func connect(t *testing.T, ms [2]*machine, on bool) {
	t.Helper()
	for i, m := range ms {
		mac := machineMAC(2 - i)
		if !on {
			mac = machineMAC(255)
		}
		if out, ok := m.try(fmt.Sprintf("ip neigh replace 10.66.0.%d lladdr %s dev eth0 nud permanent", 2-i, mac)); !ok {
			t.Fatal(out)
		}
	}
}

// TestClassClash cuts the wire between two hosts. On one side the cluster makes
// a service critical, on the other an agent registers an ephemeral instance of
// it. Soon after the sides hear of each other again, both answer alike.
func TestClassClash(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it waits for a death and for a return")
	}
	ms := wire(t)
	for i, m := range ms {
		ip := fmt.Sprintf("10.66.0.%d", i+1)
		role := "RAFT_BOOTSTRAP=true"
		if i == 1 {
			role = "FLUID_RAFT=client RAFT_JOIN_URL=http://10.66.0.1:18080 GOSSIP_SEEDS=10.66.0.1:7946"
		}
		m.start(fmt.Sprintf("FLUID_INSECURE=true GOSSIP_IMPL=crdt GOSSIP_BIND=%s:7946 FLUID_HTTP_BIND=%s:18080 RAFT_BIND=%s:11000 RAFT_ID=m%d %s", ip, ip, ip, i+1, role), "fluid-agent")
		corefile := fmt.Sprintf("fluid.internal:1053 {\n bind 127.0.0.1\n fluid {\n gossip crdt %s:7947\n gossip_insecure\n gossip_node dns%d\n gossip_seeds %s:7946\n }\n}\n", ip, i+1, ip)
		if out, ok := m.try("cat > /run/Corefile <<'END'\n" + corefile + "END"); !ok {
			t.Fatal(out)
		}
		m.start("", "coredns -conf /run/Corefile")
		eventually(t, ip+" leads or follows", func() bool {
			_, ok := m.ctl(i, "list")
			return ok
		})
	}
	if out, ok := ms[0].ctl(0, "-app before -ip 10.0.0.1"); !ok {
		t.Fatal(out)
	}
	answered := func(i int, name, want string) bool {
		out, ok := ms[i].try("fluidctl resolve " + name + " --dns 127.0.0.1:1053")
		return ok && strings.Contains(out, want) && strings.Count(out, "10.0.0.") == 1
	}
	for i := range ms {
		eventually(t, "what is committed", func() bool { return answered(i, "before", "10.0.0.1") })
	}
	alive := func(i int, name string) bool {
		out, _ := ms[i].ctl(i, "members")
		for line := range strings.Lines(out) {
			if strings.Contains(line, name) && strings.Contains(line, "alive") {
				return true
			}
		}
		return false
	}
	for i := range ms {
		eventually(t, "everybody alive", func() bool { return alive(i, "dns1") && alive(i, "dns2") })
	}

	connect(t, ms, false)
	within(t, time.Minute, "each side holds the other dead", func() bool { return !alive(0, "dns2") && !alive(1, "dns1") })
	if out, ok := ms[0].ctl(0, "-app db -ip 10.0.0.9"); !ok {
		t.Fatal(out)
	}
	if out, ok := ms[1].ctl(1, "register db --ephemeral --ip 10.0.0.5"); !ok {
		t.Fatal(out)
	}
	eventually(t, "each side its own", func() bool { return answered(0, "db", "10.0.0.9") && answered(1, "db", "10.0.0.5") })

	connect(t, ms, true)
	healed := time.Now()
	within(t, time.Minute, "one side hears of the other", func() bool { return alive(0, "dns2") || alive(1, "dns1") })
	heard := time.Now()
	within(t, 10*time.Second, "one view", func() bool { return answered(0, "db", "10.0.0.9") && answered(1, "db", "10.0.0.9") })
	t.Logf("the sides heard of each other %v after the heal, one view %v later",
		heard.Sub(healed).Round(time.Millisecond), time.Since(heard).Round(time.Millisecond))
	out, _ := ms[1].ctl(1, "get db --output json")
	if !strings.Contains(out, "10.0.0.5") || !strings.Contains(out, "class") {
		t.Errorf("the hidden instance is not explained: %s", out)
	}
}

// ctl runs fluidctl against the agent of machine i.
func (m *machine) ctl(i int, args string) (string, bool) {
	m.t.Helper()
	return m.try(fmt.Sprintf("FLUID_ADDR=http://10.66.0.%d:18080 fluidctl %s", i+1, args))
}
