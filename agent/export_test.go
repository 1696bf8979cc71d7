package agent

import "github.com/fluid-sd/fluid/agent/check"

// RemoveOnce does what follows when an instance was critical for too long.
func (a *Agent) RemoveOnce(service, id string) error {
	return a.removeOnce(check.Key{Service: service, ID: id})
}
