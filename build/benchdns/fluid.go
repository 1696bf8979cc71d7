package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"time"
)

// batchLimit is the most registrations that one POST /v1/apps takes.
const batchLimit = 1000

// startFluid starts an agent, registers the workload over its HTTP interface and
// starts Fluid's CoreDNS, which learns it over the feed. The agent has other
// processors, as etcd does.
func startFluid(ctx context.Context, b *bench) (*server, error) {
	program, err := b.program(ctx, b.opts.coredns, "coredns", "./build/coredns")
	if err != nil {
		return nil, err
	}
	return b.startFluidBuild(ctx, fluid, program)
}

// startVariant starts another build of Fluid's CoreDNS, on the same agent.
func startVariant(name, program string) func(context.Context, *bench) (*server, error) {
	return func(ctx context.Context, b *bench) (*server, error) {
		path, err := filepath.Abs(program)
		if err != nil {
			return nil, err
		}
		return b.startFluidBuild(ctx, name, path)
	}
}

func (b *bench) startFluidBuild(ctx context.Context, name, program string) (*server, error) {
	if b.agent == nil {
		if err := b.startAgent(ctx); err != nil {
			return nil, err
		}
		if err := b.register(ctx); err != nil {
			return nil, err
		}
	}
	s, err := b.startCoreDNS(ctx, name, program, fluidBlock(b.work, b.socket))
	if err != nil {
		return nil, err
	}
	s.store = b.agent
	return s, nil
}

// register registers the workload with the agent.
func (b *bench) register(ctx context.Context) error {
	bodies, err := registrations(b.work, batchLimit)
	if err != nil {
		return err
	}
	began := time.Now()
	for _, body := range bodies {
		if err := b.postBytes(ctx, b.agentURL+"/v1/apps", body); err != nil {
			return b.agent.failure(err)
		}
	}
	b.logf("  %d instances registered in %d batches: %s", b.work.Services*b.work.Instances, len(bodies),
		time.Since(began).Round(time.Millisecond))
	return nil
}

// startAgent starts fluid-agent as a cluster of one and waits until it takes
// writes.
func (b *bench) startAgent(ctx context.Context) error {
	program, err := b.program(ctx, b.opts.agent, "fluid-agent", "./agent/cmd/fluid-agent")
	if err != nil {
		return err
	}
	var address [3]string
	for i := range address {
		port, err := freePort(ctx)
		if err != nil {
			return err
		}
		address[i] = fmt.Sprintf("127.0.0.1:%d", port)
	}
	b.socket = filepath.Join(b.dir, "agent.sock")
	b.agentURL = "http://" + address[0]
	agent, err := b.start("fluid-agent", b.opts.storeCPUs, []string{
		"FLUID_DATA_DIR=" + filepath.Join(b.dir, "agent"),
		"FLUID_SOCKET=" + b.socket,
		"FLUID_HTTP_BIND=" + address[0],
		"RAFT_BIND=" + address[1],
		"GOSSIP_BIND=" + address[2],
		"RAFT_BOOTSTRAP=true",
	}, program)
	if err != nil {
		return err
	}
	err = agent.ready(ctx, 30*time.Second, func() error { return b.get(ctx, b.agentURL+"/readyz") })
	if err != nil {
		return err
	}
	// Ready means restored, with or without a leader: the first write waits for one.
	probe := []byte(`[{"appId":"probe","id":"i0","ip":"10.255.255.1"}]`)
	err = agent.ready(ctx, 30*time.Second, func() error { return b.postBytes(ctx, b.agentURL+"/v1/apps", probe) })
	if err != nil {
		return err
	}
	b.agent = agent
	return nil
}

// okay tells whether an HTTP status is a success.
func okay(status int) bool { return status >= http.StatusOK && status < http.StatusMultipleChoices }
