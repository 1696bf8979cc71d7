package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fluid-sd/fluid/agent/api"
)

// finding is one thing that doctor looked at.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"` // ok, warning or problem
	Detail string `json:"detail"`
}

// maxLag is how many log entries a healthy server may be behind, maxSkew how
// far the clocks of two may be apart: lifetimes are stamped by whoever leads.
const (
	maxLag  = 1000
	maxSkew = 500 * time.Millisecond
)

func (c *ctl) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong with the cluster", Args: cobra.NoArgs,
		Long: "Look for what is wrong with the cluster, from this agent and from every server it knows.\nExits 1 if there is a problem.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var found []finding
			err := c.read(cmd.Context(), func(ctx context.Context, cl *api.Client) (err error) {
				found, err = c.examine(ctx, cl)
				return err
			})
			if err != nil {
				return err
			}
			err = printAs(c, found, func(w io.Writer, list []finding) {
				row(w, "CHECK", "STATE", "DETAIL")
				for _, f := range list {
					row(w, f.Check, f.State, f.Detail)
				}
			})
			for _, f := range found {
				if err == nil && f.State == "problem" {
					return &exitError{code: exitFailed}
				}
			}
			return err
		},
	}
}

func (c *ctl) examine(ctx context.Context, cl *api.Client) ([]finding, error) {
	var out []finding
	add := func(check string, ok bool, bad, format string, args ...any) {
		state := "ok"
		if !ok {
			state = bad
		}
		out = append(out, finding{check, state, fmt.Sprintf(format, args...)})
	}
	ready, err := cl.Ready(ctx)
	if err != nil {
		return nil, err
	}
	add("agent", ready.Status == "ready", "problem", "%s", strings.Join(append([]string{ready.Status}, ready.Reasons...), ": "))
	raft, err := cl.Raft(ctx)
	if err != nil {
		return nil, err
	}
	add("leader", raft.Leader.ID != "", "problem", "%s", orNone(raft.Leader.Name, "none known: writes are refused, DNS goes on"))
	voters, healthy := 0, 0
	for _, s := range raft.Servers {
		if s.Suffrage == "voter" {
			voters++
			if s.Healthy || raft.Leader.HTTP == "" {
				healthy++
			}
		}
	}
	add("voters", voters >= 3, "warning", "%d; fewer than 3 do not survive the loss of one", voters)
	if raft.State == "leader" {
		add("quorum", healthy > voters/2, "problem", "%d of %d voters answer the leader", healthy, voters)
	}
	return append(out, c.examineServers(ctx, raft)...), nil
}

// examineServers asks every server for its own view.
func (c *ctl) examineServers(ctx context.Context, here api.Raft) []finding {
	var out []finding
	var read []clock
	for _, s := range here.Servers {
		check := "server " + s.Name
		if s.HTTP == "" {
			out = append(out, finding{check, "warning", "its HTTP address is not known"})
			continue
		}
		cl, err := c.clientOf(s.HTTP)
		if err != nil {
			out = append(out, finding{check, "problem", err.Error()})
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		asked := time.Now()
		there, err := cl.Raft(ctx)
		answered := time.Now()
		ready, _ := cl.Ready(ctx) // an error shows in err too
		cancel()
		if err == nil && !there.Time.IsZero() { // an older version tells no time
			read = append(read, readClock(s.Name, there.Time, asked, answered))
		}
		switch {
		case err != nil:
			out = append(out, finding{check, "problem", "does not answer: " + err.Error()})
		case there.ClusterID != here.ClusterID:
			out = append(out, finding{check, "problem", fmt.Sprintf("is of cluster %s, this agent of %s", there.ClusterID, here.ClusterID)})
		case there.AppliedIndex+maxLag < here.CommitIndex:
			out = append(out, finding{check, "warning", fmt.Sprintf("applied %d of %d", there.AppliedIndex, here.CommitIndex)})
		default:
			out = append(out, finding{check, "ok", fmt.Sprintf("%s, applied %d:%d", there.State, there.Generation, there.AppliedIndex)})
		}
		out = append(out, certificates(check, ready.Checks)...)
	}
	return append(out, clocks(read)...)
}

// clock is how far a server's clock is ahead of the one here: at least, at most.
type clock struct {
	server      string
	least, most time.Duration
}

// readClock returns what a time says that a server told between two moments.
func readClock(server string, told, asked, answered time.Time) clock {
	// Round takes the monotonic reading away, which the told time has not.
	return clock{server, told.Sub(answered.Round(0)), told.Sub(asked.Round(0))}
}

// clocks compares the clocks of the servers. Two differ by what is certain
// whatever the time on the way was.
func clocks(read []clock) []finding {
	if len(read) < 2 {
		return nil
	}
	ahead := slices.MaxFunc(read, func(a, b clock) int { return cmp.Compare(a.least, b.least) })
	behind := slices.MinFunc(read, func(a, b clock) int { return cmp.Compare(a.most, b.most) })
	skew := ahead.least - behind.most
	if skew <= maxSkew {
		return []finding{{"clocks", "ok", fmt.Sprintf("those of %d servers agree within %s", len(read), maxSkew)}}
	}
	return []finding{{"clocks", "warning", fmt.Sprintf("that of %s is %s ahead of that of %s; let NTP set both",
		ahead.server, skew.Round(time.Millisecond), behind.server)}}
}

// certificates picks what a server says of its certificates.
func certificates(server string, checks map[string]string) []finding {
	var out []finding
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		if !strings.HasSuffix(name, " certificate") {
			continue
		}
		state, text := "ok", checks[name]
		switch {
		case strings.Contains(text, "EXPIRED"):
			state = "problem"
		case strings.Contains(text, "SOON"), strings.Contains(text, "cannot be used"):
			state = "warning"
		}
		out = append(out, finding{server + ": " + name, state, text})
	}
	return out
}

func orNone(s, none string) string {
	if s == "" {
		return none
	}
	return s
}
