package store

import "github.com/fluid-sd/fluid/plugin/record"

// ServerInfo is what the cluster knows of a Raft server besides its Raft
// address: committed when the server joins and when it changes.
type ServerInfo struct {
	ID      string // random server id of the data directory
	Name    string // RAFT_ID
	HTTP    string // base URL of the agent's API
	Zone    string
	Version string // of the agent
	// Protocol is the greatest command type the server understands.
	Protocol uint64
}

func (s *ServerInfo) append(b []byte) []byte {
	b = record.AppendString(b, 1, s.ID)
	b = record.AppendString(b, 2, s.Name)
	b = record.AppendString(b, 3, s.HTTP)
	b = record.AppendString(b, 4, s.Zone)
	b = record.AppendString(b, 5, s.Version)
	return record.AppendUint(b, 6, s.Protocol)
}

func decodeServerInfo(str string) (ServerInfo, error) {
	var s ServerInfo
	err := eachField(str, func(f field) error {
		switch f.id {
		case 1:
			s.ID = f.data
		case 2:
			s.Name = f.data
		case 3:
			s.HTTP = f.data
		case 4:
			s.Zone = f.data
		case 5:
			s.Version = f.data
		case 6:
			s.Protocol = f.num
		}
		return nil
	})
	return s, err
}

// Member is a DNS server of the roster: one whose applied position counts for
// "applied everywhere".
type Member struct {
	ID   string // durable member id
	Name string
	// Since is the index at which it was first seen.
	Since uint64
}

func (m *Member) append(b []byte) []byte {
	b = record.AppendString(b, 1, m.ID)
	b = record.AppendString(b, 2, m.Name)
	return record.AppendUint(b, 3, m.Since)
}

func decodeMember(str string) (Member, error) {
	var m Member
	err := eachField(str, func(f field) error {
		switch f.id {
		case 1:
			m.ID = f.data
		case 2:
			m.Name = f.data
		case 3:
			m.Since = f.num
		}
		return nil
	})
	return m, err
}
