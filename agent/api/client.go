package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Client is the other end of the Handler. It may be used from any number of
// goroutines. Its methods return an *Error for every problem that an agent
// answered.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// NewClient returns a client of the agent at addr: http://HOST:PORT,
// https://HOST:PORT, or unix:PATH for the agent's admin.sock. token may be
// empty. hc may be nil; it is not used for unix addresses.
func NewClient(addr, token string, hc *http.Client) (*Client, error) {
	if hc == nil {
		hc = http.DefaultClient
	}
	// Go drops the token where a redirect leads to another host; the leader
	// needs it, so do follows redirects itself.
	own := *hc
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	hc = &own
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(path, "//"))
		}
		return &Client{base: "http://unix", token: token, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}, nil
	}
	u, err := url.Parse(addr)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("%q is not an agent's address; use http://HOST:PORT, https://HOST:PORT or unix:PATH", addr)
	}
	return &Client{base: strings.TrimSuffix(u.String(), "/"), token: token, http: hc}, nil
}

// Close gives up the connections that are kept for the next request.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// WriteOptions are the conditions of a write; the zero value has none.
type WriteOptions struct {
	IdempotencyKey string
	IfMatch        *uint64
	Wait           string // "", "committed" or "everywhere"
	Timeout        string // with Wait, a Go duration
}

func (o *WriteOptions) apply(h http.Header, q url.Values) {
	if o == nil {
		return
	}
	if o.IdempotencyKey != "" {
		h.Set("Idempotency-Key", o.IdempotencyKey)
	}
	if o.IfMatch != nil {
		h.Set("If-Match", strconv.FormatUint(*o.IfMatch, 10))
	}
	if o.Wait != "" {
		q.Set("wait", o.Wait)
	}
	if o.Timeout != "" {
		q.Set("timeout", o.Timeout)
	}
}

// Register registers instances of critical services in one commit. opt may be
// nil.
func (c *Client) Register(ctx context.Context, apps []App, opt *WriteOptions) ([]Registered, error) {
	if len(apps) == 1 {
		out := make([]Registered, 1)
		err := c.write(ctx, http.MethodPost, "/v1/apps", apps[0], &out[0], opt)
		return out, err
	}
	var out []Registered
	err := c.write(ctx, http.MethodPost, "/v1/apps", apps, &out, opt)
	return out, err
}

// Deregister removes a service with all its instances.
func (c *Client) Deregister(ctx context.Context, service string, opt *WriteOptions) (Removed, error) {
	var out Removed
	err := c.write(ctx, http.MethodDelete, "/v1/apps/"+url.PathEscape(service), nil, &out, opt)
	return out, err
}

// DeregisterInstance removes one instance.
func (c *Client) DeregisterInstance(ctx context.Context, service, id string, opt *WriteOptions) (Removed, error) {
	var out Removed
	err := c.write(ctx, http.MethodDelete, "/v1/apps/"+url.PathEscape(service)+"/instances/"+url.PathEscape(id), nil, &out, opt)
	return out, err
}

// Filter selects instances; empty fields select all.
type Filter struct{ Tag, Zone, Status string }

func (f Filter) values() url.Values {
	q := url.Values{}
	for k, v := range map[string]string{"tag": f.Tag, "zone": f.Zone, "status": f.Status} {
		if v != "" {
			q.Set(k, v)
		}
	}
	return q
}

// Service returns the view of a service.
func (c *Client) Service(ctx context.Context, name string, f Filter) (Service, error) {
	var out Service
	err := c.do(ctx, http.MethodGet, "/v1/services/"+url.PathEscape(name), f.values(), nil, nil, &out)
	return out, err
}

// Services returns all services, page after page.
func (c *Client) Services(ctx context.Context, f Filter) ([]ServiceSummary, error) {
	out := []ServiceSummary{}
	q := f.values()
	q.Set("limit", "1000")
	for {
		var page ServiceList
		if err := c.do(ctx, http.MethodGet, "/v1/services", q, nil, nil, &page); err != nil {
			return nil, err
		}
		out = append(out, page.Services...)
		if page.Next == "" {
			return out, nil
		}
		q.Set("after", page.Next)
	}
}

// ServiceConfig returns the settings of a service.
func (c *Client) ServiceConfig(ctx context.Context, name string) (ServiceConfig, error) {
	var out ServiceConfig
	err := c.do(ctx, http.MethodGet, "/v1/services/"+url.PathEscape(name)+"/config", nil, nil, nil, &out)
	return out, err
}

// PutServiceConfig sets the settings of a service.
func (c *Client) PutServiceConfig(ctx context.Context, name string, cfg ServiceConfig, opt *WriteOptions) (Registered, error) {
	var out Registered
	err := c.write(ctx, http.MethodPut, "/v1/services/"+url.PathEscape(name)+"/config", cfg, &out, opt)
	return out, err
}

// CreateOverlay commits an overlay.
func (c *Client) CreateOverlay(ctx context.Context, o Overlay, opt *WriteOptions) (Placed, error) {
	var out Placed
	err := c.write(ctx, http.MethodPost, "/v1/overlays", o, &out, opt)
	return out, err
}

// DeleteOverlay lifts an overlay.
func (c *Client) DeleteOverlay(ctx context.Context, id string, opt *WriteOptions) (Removed, error) {
	var out Removed
	err := c.write(ctx, http.MethodDelete, "/v1/overlays/"+url.PathEscape(id), nil, &out, opt)
	return out, err
}

// Overlays returns all overlays, page after page.
func (c *Client) Overlays(ctx context.Context) ([]Overlay, error) {
	out := []Overlay{}
	q := url.Values{"limit": {"1000"}}
	for {
		var page OverlayList
		if err := c.do(ctx, http.MethodGet, "/v1/overlays", q, nil, nil, &page); err != nil {
			return nil, err
		}
		out = append(out, page.Overlays...)
		if page.Next == "" {
			return out, nil
		}
		q.Set("after", page.Next)
	}
}

// Raft returns the state of consensus.
func (c *Client) Raft(ctx context.Context) (Raft, error) {
	var out Raft
	err := c.do(ctx, http.MethodGet, "/v1/raft", nil, nil, nil, &out)
	return out, err
}

// Ready returns what /readyz?verbose says. An agent that is not ready is no
// error.
func (c *Client) Ready(ctx context.Context) (Health, error) {
	var out Health
	err := c.do(ctx, http.MethodGet, "/readyz", url.Values{"verbose": {""}}, nil, nil, &out)
	var e *Error
	if errors.As(err, &e) && out.Status != "" {
		return out, nil
	}
	return out, err
}

// write sends a change.
func (c *Client) write(ctx context.Context, method, path string, body, out any, opt *WriteOptions) error {
	h, q := http.Header{}, url.Values{}
	opt.apply(h, q)
	return c.do(ctx, method, path, q, h, body, out)
}

const (
	maxAnswer = 256 << 20 // bytes of an answer that a client reads
	maxHops   = 5         // redirects to the leader that a client follows
)

func (c *Client) do(ctx context.Context, method, path string, q url.Values, h http.Header, body, out any) error {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return err
		}
	}
	target := c.base + path
	if len(q) > 0 {
		target += "?" + q.Encode()
	}
	return c.send(ctx, method, target, h, b, out)
}

// send sends a request to where it can be done, and decodes the answer.
func (c *Client) send(ctx context.Context, method, target string, h http.Header, b []byte, out any) error {
	for hop := 0; ; hop++ {
		resp, data, err := c.once(ctx, method, target, h, b)
		if err != nil {
			return err
		}
		switch {
		case resp.StatusCode == http.StatusTemporaryRedirect && hop < maxHops:
			loc, err := resp.Location()
			if err != nil {
				return fmt.Errorf("redirect of %s: %w", target, err)
			}
			target = loc.String()
			continue
		case resp.StatusCode >= http.StatusMultipleChoices:
			_ = json.Unmarshal(data, out) // /readyz answers 503 with its own shape
			return problemOf(resp, data)
		}
		if err := json.Unmarshal(data, out); err != nil {
			return fmt.Errorf("answer of %s %s: %w", method, target, err)
		}
		return nil
	}
}

// once sends one request and reads the answer.
func (c *Client) once(ctx context.Context, method, target string, h http.Header, body []byte) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	maps.Copy(req.Header, h)
	if body != nil && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp, data, err
}

// Join asks to be taken into the cluster, wherever its leader is.
func (c *Client) Join(ctx context.Context, req JoinRequest) (Joined, error) {
	var out Joined
	err := c.do(ctx, http.MethodPost, JoinPath, nil, nil, req, &out)
	return out, err
}

// Transfer hands leadership to a server, or to the best one if server is empty.
func (c *Client) Transfer(ctx context.Context, server string) (ServerRef, error) {
	var out ServerRef
	err := c.do(ctx, http.MethodPost, "/v1/raft/transfer", nil, nil, ServerRef{server}, &out)
	return out, err
}

// Remove removes a server, by name or id, from the cluster.
func (c *Client) Remove(ctx context.Context, server string) (ServerRef, error) {
	var out ServerRef
	err := c.do(ctx, http.MethodPost, "/v1/raft/remove", nil, nil, ServerRef{server}, &out)
	return out, err
}

// Applied waits until the DNS members at this agent have applied pos, at most
// for wait, and returns how far they are.
func (c *Client) Applied(ctx context.Context, pos record.Position, wait time.Duration) (Applied, error) {
	var out Applied
	q := url.Values{"position": {pos.String()}, "timeout": {wait.String()}}
	err := c.do(ctx, http.MethodGet, AppliedPath, q, nil, nil, &out)
	return out, err
}

// Forward carries bytes to the store of another server and its answer back.
// The error wraps store.ErrUnavailable if they certainly did not get there.
func (c *Client) Forward(ctx context.Context, request []byte) ([]byte, error) {
	h := http.Header{"Content-Type": {"application/octet-stream"}}
	resp, data, err := c.once(ctx, http.MethodPost, c.base+ForwardPath, h, request)
	var dial *net.OpError
	switch {
	case errors.As(err, &dial) && dial.Op == "dial":
		return nil, fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK: // the other end looked at it and did nothing
		return nil, fmt.Errorf("%w: %w", store.ErrUnavailable, problemOf(resp, data))
	}
	return data, nil
}

// problemOf reads the problem that an agent, or something in front of it,
// answered.
func problemOf(resp *http.Response, data []byte) error {
	e := &Error{Status: resp.StatusCode, Title: http.StatusText(resp.StatusCode)}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") {
		var p struct {
			Type, Title, Detail string
			Errors              []ErrorDetail
		}
		if json.Unmarshal(data, &p) == nil {
			e.Type, e.Title, e.Detail, e.Errors = p.Type, p.Title, p.Detail, p.Errors
		}
	}
	e.RetryAfter, _ = strconv.Atoi(resp.Header.Get("Retry-After"))
	return e
}
