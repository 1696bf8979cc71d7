package record

import "time"

// Summary is the part of an encoded instance that decides whether it is
// answered, read without decoding the rest.
type Summary struct {
	Service, ID, Node, Zone string
	Weight                  uint16
	Status                  Status
	TTL                     time.Duration // 0: the service's or the zone's
}

// Summarize reads the summary of an encoded instance. It does not allocate;
// its strings share s. It reports malformed bytes as DecodeInstance does, but
// does not look into addresses, ports and metadata.
func Summarize(s string) (Summary, error) {
	sum := Summary{Weight: DefaultWeight}
	_, err := fields(s, func(field int, num uint64, data string) (bool, error) {
		switch field {
		case 1:
			sum.ID = data
		case 2:
			sum.Service = data
		case 3:
			sum.Node = data
		case 10:
			return true, narrow(&sum.Weight, num-1)
		case 12:
			sum.Zone = data
		case 13:
			sum.TTL = time.Duration(min(num, uint64(MaxTTL/time.Second))) * time.Second
		case 14:
			return true, narrow((*uint8)(&sum.Status), num)
		}
		return true, nil
	})
	return sum, err
}
