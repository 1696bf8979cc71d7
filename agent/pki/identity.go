package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/fluid-sd/fluid/plugin/record"
)

// ErrIdentity is returned when a certificate is not that of the agent it is
// presented for.
var ErrIdentity = errors.New("certificate of another agent")

// Prefixes of the URIs that say who an agent is.
const (
	serverURN = "urn:fluid:server:"
	nameURN   = "urn:fluid:name:"
)

// Identity says which agent is meant: by the random id of its Raft server, by
// its name (RAFT_ID), or by both. Either may be empty, not both.
type Identity struct {
	ID   string
	Name string
}

// String returns the name and the id, for messages.
func (i Identity) String() string {
	switch {
	case i.Name == "":
		return i.ID
	case i.ID == "":
		return i.Name
	}
	return i.Name + " (" + i.ID + ")"
}

// Validate returns an error unless the identity can stand in a certificate.
func (i Identity) Validate() error {
	if i == (Identity{}) {
		return errors.New("an identity needs a server id or a name")
	}
	if i.ID != "" && !record.IsLabel(i.ID) {
		return fmt.Errorf("server id %q is not a label: GET /v1/raft of the agent shows its id", i.ID)
	}
	if i.Name != "" && !record.IsLabel(i.Name) {
		return fmt.Errorf("name %q is not a label: use the agent's RAFT_ID", i.Name)
	}
	return nil
}

// uris returns the identity as subject alternative names.
func (i Identity) uris() []*url.URL {
	var us []*url.URL
	if i.ID != "" {
		us = append(us, &url.URL{Scheme: "urn", Opaque: strings.TrimPrefix(serverURN, "urn:") + i.ID})
	}
	if i.Name != "" {
		us = append(us, &url.URL{Scheme: "urn", Opaque: strings.TrimPrefix(nameURN, "urn:") + i.Name})
	}
	return us
}

// Check returns an error that wraps ErrIdentity unless cert is that of the
// agent i. A certificate that names server ids is good for those only; one
// without is good for the names it carries.
func (i Identity) Check(cert *x509.Certificate) error {
	ids, names := identities(cert)
	switch {
	case len(ids) > 0 && i.ID != "" && slices.Contains(ids, i.ID):
		return nil
	case len(ids) == 0 && i.Name != "" && slices.Contains(names, i.Name):
		return nil
	case len(ids)+len(names) == 0:
		return fmt.Errorf("%w: want %s, the certificate of %q names no agent; issue one with fluidctl tls issue", ErrIdentity, i, cert.Subject.CommonName)
	case len(ids) > 0:
		return fmt.Errorf("%w: want %s, have server id %s", ErrIdentity, i, strings.Join(ids, ", "))
	}
	return fmt.Errorf("%w: want %s, have name %s", ErrIdentity, i, strings.Join(names, ", "))
}

// identities returns the server ids and names that cert carries.
func identities(cert *x509.Certificate) (ids, names []string) {
	for _, u := range cert.URIs {
		if id, ok := strings.CutPrefix(u.String(), serverURN); ok {
			ids = append(ids, id)
		} else if name, ok := strings.CutPrefix(u.String(), nameURN); ok {
			names = append(names, name)
		}
	}
	return ids, names
}
