package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// EphemeralOptions are the conditions of an ephemeral write; the zero value has
// none.
type EphemeralOptions struct {
	Ack      string // "", "local" or "mesh:K"
	Timeout  string // with mesh:K, a Go duration
	Takeover bool   // of a registration
	Force    bool   // of a removal
}

func (o *EphemeralOptions) values() url.Values {
	q := url.Values{}
	if o == nil {
		return q
	}
	if o.Ack != "" {
		q.Set("ack", o.Ack)
	}
	if o.Timeout != "" {
		q.Set("timeout", o.Timeout)
	}
	if o.Takeover {
		q.Set("takeover", "true")
	}
	if o.Force {
		q.Set("force", "true")
	}
	return q
}

func instancePath(service, id string) string {
	return "/v1/services/" + url.PathEscape(service) + "/instances/" + url.PathEscape(id)
}

// PutInstance registers an ephemeral instance at the agent. A target without
// an id gets the one that its addresses make. opt may be nil.
func (c *Client) PutInstance(ctx context.Context, service string, t Target, opt *EphemeralOptions) (Vouched, error) {
	var out Vouched
	in, err := t.record(service, time.Now())
	if err != nil {
		return out, err
	}
	err = c.do(ctx, http.MethodPut, instancePath(service, in.ID), opt.values(), nil, t, &out)
	return out, err
}

// DeleteInstance withdraws an ephemeral instance, wherever it is registered.
// opt may be nil.
func (c *Client) DeleteInstance(ctx context.Context, service, id string, opt *EphemeralOptions) (Vouched, error) {
	var out Vouched
	err := c.do(ctx, http.MethodDelete, instancePath(service, id), opt.values(), nil, nil, &out)
	return out, err
}

// maxEventLine bounds one line of an event stream, in bytes.
const maxEventLine = 64 << 10

// Watch calls f with each change after a position GENERATION:INDEX, or from now
// on if after is empty. It blocks until f or ctx ends it, with their error, or
// the agent does, with io.EOF.
func (c *Client) Watch(ctx context.Context, after string, f func(Event) error) error {
	target := c.base + "/v1/watch"
	if after != "" {
		target += "?" + url.Values{"after": {after}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		data, err := io.ReadAll(io.LimitReader(resp.Body, maxEventLine))
		return errors.Join(problemOf(resp, data), err)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEventLine)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var ev Event
		if err := json.Unmarshal([]byte(data), &ev); err != nil {
			return fmt.Errorf("event of %s: %w", target, err)
		}
		if err := f(ev); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.EOF
}
