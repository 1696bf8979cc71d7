package agent

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// One rule names every setting in three places. The YAML key is the koanf tag
// of Config. The variable is the key in upper case, with FLUID_ before it
// unless it starts with GOSSIP_ or RAFT_; "raft" itself is FLUID_RAFT. The flag
// is the key with dashes for underscores. A secret can also be read from the
// file that KEY_file names.

// secrets are the settings that can be given as a file, and never on a
// command line, which other users of the host can read.
var secrets = []string{"token", "gossip_key_hex", "raft_join_secret"}

// otherEnv are variables with our prefixes that are not settings of the agent.
var otherEnv = []string{"FLUID_CONFIG", "FLUID_ADDR", "FLUID_DNS", "FLUID_DNS_ZONE"}

var usage = map[string]string{
	"node":                          "name of this node (default: first label of the host name)",
	"zone":                          "failure domain of this node",
	"data_dir":                      "data directory (default: /var/lib/fluid/<raft id> for root, else below $XDG_STATE_HOME)",
	"socket":                        "unix socket for the DNS server (default: /run/fluid/agent.sock for root, else below $XDG_RUNTIME_DIR)",
	"services_dir":                  "not built into this version: files that describe local instances",
	"http_bind":                     "address of the HTTP interface (default: " + DefaultHTTPBind + ", or the next free port)",
	"http_advertise":                "address at which other agents reach http-bind, where it differs",
	"token":                         "operator token",
	"tls_cert_file":                 "certificate of the HTTP interface, PEM",
	"tls_key_file":                  "key of the HTTP interface, PEM",
	"tls_ca_file":                   "authority of other agents' certificates, PEM (default: the system's)",
	"insecure":                      "allow addresses that other hosts can reach without keys",
	"log_level":                     "debug, info, warn or error (default: info)",
	"log_format":                    "text or json (default: text)",
	"raft":                          "part in consensus: server, client, or auto, a server while the cluster wants more (default: auto)",
	"raft_bind":                     "address of consensus (default: " + DefaultRaftBind + ", or the next free port)",
	"raft_advertise":                "address at which other servers reach raft-bind, where it differs",
	"raft_id":                       "name of this server (default: the node's name)",
	"raft_bootstrap":                "form a new cluster if the data directory is empty (default: only if nothing points to another and all addresses are loopback)",
	"raft_join_url":                 "HTTP address of any agent of the cluster to join or, as a client, to follow",
	"raft_join_secret":              "secret that the cluster asks of new servers",
	"raft_tls_cert_file":            "certificate of consensus, PEM",
	"raft_tls_key_file":             "key of consensus, PEM",
	"raft_tls_ca_file":              "authority of consensus, PEM",
	"raft_snapshot_interval":        "how often to consider a snapshot (default: 30s)",
	"raft_snapshot_threshold":       "log entries that make a snapshot worth while (default: 1000)",
	"raft_snapshot_copies_dir":      "directory for copies of what is committed, which hold the cluster's key (default: none)",
	"raft_snapshot_copies_interval": "how often to copy (default: 1h)",
	"raft_snapshot_copies_keep":     "copies to keep (default: 48)",
	"gossip_impl":                   "mesh: inmemory, memberlist or crdt (default: inmemory)",
	"gossip_bind":                   "address of the mesh (default: " + DefaultGossipBind + ", or the next free port)",
	"gossip_advertise":              "address at which other members reach gossip-bind, where it differs",
	"gossip_node":                   "name of the mesh member (default: the node's name)",
	"gossip_seeds":                  "members to join, comma-separated",
	"gossip_key_hex":                "mesh keys in hex, comma-separated; the first encrypts",
	"gossip_compression":            "compress mesh frames",
	"gossip_label":                  "label that keeps meshes apart",
	"gossip_allow":                  "networks that may join, comma-separated CIDRs",
	"gossip_reap_after":             "how long a node is dead until what it registered is dropped for good (default: 72h)",
}

// keys returns the YAML keys of Config in order, with the type of each.
func keys() (names []string, types map[string]reflect.Type) {
	types = map[string]reflect.Type{}
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		for f := range t.Fields() {
			if tag := f.Tag.Get("koanf"); tag == ",squash" {
				walk(f.Type)
			} else if tag != "-" {
				names = append(names, tag)
				types[tag] = f.Type
			}
		}
	}
	walk(reflect.TypeFor[Config]())
	return names, types
}

func envName(key string) string {
	key, _, _ = strings.Cut(key, "[")
	up := strings.ToUpper(key)
	if strings.HasPrefix(up, "GOSSIP_") || strings.HasPrefix(up, "RAFT_") {
		return up
	}
	return "FLUID_" + up
}

// Flags defines a flag for every setting, and --config for the YAML file.
func Flags(fs *pflag.FlagSet) {
	fs.String("config", "", "YAML file (FLUID_CONFIG)")
	names, types := keys()
	for _, key := range names {
		flag := strings.ReplaceAll(key, "_", "-")
		use := fmt.Sprintf("%s (%s)", usage[key], envName(key))
		switch {
		case slices.Contains(secrets, key):
			fs.String(flag+"-file", "", "file with the "+usage[key]+" ("+envName(key)+"_FILE)")
		case types[key].Kind() == reflect.Bool || types[key] == reflect.TypeFor[*bool]():
			fs.Bool(flag, false, use)
		default:
			fs.String(flag, "", use)
		}
	}
}

// Load reads the configuration: a flag of fs (defined by Flags) wins over a
// variable of environ, that over the YAML file, that over Default. fs may be
// nil. It returns what an operator should be warned of: variables with our
// prefixes that mean nothing. An unknown YAML key is an error. Load does not
// call Validate.
func Load(fs *pflag.FlagSet, environ []string) (cfg Config, warnings []string, err error) {
	names, types := keys()
	for _, s := range secrets {
		names = append(names, s+"_file")
	}
	ko := koanf.New(".")
	if path := configPath(fs, environ); path != "" {
		if err := ko.Load(file.Provider(path), yaml.Parser()); err != nil {
			return cfg, nil, fmt.Errorf("config file %s: %w", path, err)
		}
		if err := unknownKeys(path, ko, names); err != nil {
			return cfg, nil, err
		}
	}
	byEnv := map[string]string{}
	for _, n := range names {
		byEnv[envName(n)] = n
	}
	_ = ko.Load(env.Provider("", env.Opt{ // it cannot fail
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			key, ok := byEnv[name]
			if !ok {
				if ours(name) && !slices.Contains(otherEnv, name) {
					warnings = append(warnings, fmt.Sprintf("unknown variable %s%s", name, didYouMean(name, byEnv)))
				}
				return "", nil
			}
			if value == "" { // as compose files and unit files write "unset"
				return "", nil
			}
			dropOther(ko, key)
			return key, value
		},
	}), nil)
	slices.Sort(warnings)
	if fs != nil {
		_ = ko.Load(posflag.ProviderWithFlag(fs, "", ko, func(f *pflag.Flag) (string, any) {
			key := strings.ReplaceAll(f.Name, "-", "_")
			if !f.Changed || !slices.Contains(names, key) {
				return "", nil
			}
			dropOther(ko, key)
			return key, f.Value.String()
		}), nil)
	}
	keyFile := ko.String("gossip_key_hex_file")
	if err := readSecrets(ko); err != nil {
		return cfg, warnings, err
	}
	cfg = Default()
	cfg.Gossip.KeyFile = keyFile
	if err := unmarshal(ko, types, &cfg); err != nil {
		return cfg, warnings, err
	}
	return cfg, warnings, nil
}

// dropOther removes the lower layer's other spelling of a secret, so that
// FLUID_TOKEN_FILE in the environment wins over token in the file.
func dropOther(ko *koanf.Koanf, key string) {
	for _, s := range secrets {
		switch key {
		case s:
			ko.Delete(s + "_file")
		case s + "_file":
			ko.Delete(s)
		}
	}
}

func configPath(fs *pflag.FlagSet, environ []string) string {
	if fs != nil {
		if f := fs.Lookup("config"); f != nil && f.Changed {
			return f.Value.String()
		}
	}
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, "FLUID_CONFIG="); ok {
			return v
		}
	}
	return ""
}

func ours(name string) bool {
	return strings.HasPrefix(name, "FLUID_") || strings.HasPrefix(name, "GOSSIP_") || strings.HasPrefix(name, "RAFT_")
}

func unknownKeys(path string, ko *koanf.Koanf, names []string) error {
	known := map[string]string{}
	for _, n := range names {
		known[n] = n
	}
	var errs []error
	for key := range ko.Raw() {
		if known[key] == "" {
			errs = append(errs, fmt.Errorf("config file %s: unknown key %q%s", path, key, didYouMean(key, known)))
		}
	}
	return errors.Join(errs...)
}

// didYouMean returns the known name nearest to name, as the end of a message.
func didYouMean(name string, known map[string]string) string {
	best, dist := "", 4
	for k := range known {
		if d := distance(name, k); d < dist || d == dist && k < best {
			best, dist = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// distance is the Levenshtein distance of a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diag, row[j+1] = row[j+1], min(diag+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// uncomment leaves out the lines that begin with a hash.
func uncomment(text string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool {
		return strings.HasPrefix(strings.TrimSpace(line), "#")
	}), "\n")
}

func readSecrets(ko *koanf.Koanf) error {
	for _, s := range secrets {
		path := ko.String(s + "_file")
		if path == "" {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("%s_file: %w", s, err)
		}
		v := strings.Join(strings.Fields(uncomment(string(b))), ",") // a key ring has one key a line
		if v == "" {
			return fmt.Errorf("%s_file: %s is empty", s, path)
		}
		ko.Delete(s + "_file")
		if err := ko.Set(s, v); err != nil {
			return fmt.Errorf("%s_file: %w", s, err)
		}
	}
	return nil
}

// unmarshal decodes key by key, so that an error names the setting.
func unmarshal(ko *koanf.Koanf, types map[string]reflect.Type, cfg *Config) error {
	var errs []error
	for key, typ := range types {
		if !ko.Exists(key) {
			continue
		}
		if _, isText := ko.Get(key).(string); typ == reflect.TypeFor[time.Duration]() && !isText {
			// A bare number of YAML would count nanoseconds.
			errs = append(errs, &ConfigError{key, fmt.Sprint(ko.Get(key)), "is not " + typeName(typ), "correct or remove it"})
			continue
		}
		one := koanf.New(".")
		_ = one.Set(key, ko.Get(key)) // a key without a delimiter cannot fail
		err := one.UnmarshalWithConf("", cfg, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
			Result:           cfg,
			TagName:          "koanf",
			WeaklyTypedInput: true,
			DecodeHook: mapstructure.ComposeDecodeHookFunc(
				mapstructure.StringToTimeDurationHookFunc(), splitList),
		}})
		if err != nil {
			shown := fmt.Sprint(ko.Get(key))
			if slices.Contains(secrets, key) {
				shown = "(secret)"
			}
			errs = append(errs, &ConfigError{key, shown, "is not " + typeName(typ), "correct or remove it"})
		}
	}
	return errors.Join(errs...)
}

func splitList(from, to reflect.Type, v any) (any, error) {
	if from.Kind() != reflect.String || to != reflect.TypeFor[[]string]() {
		return v, nil
	}
	return strings.FieldsFunc(v.(string), func(r rune) bool { return r == ',' || r == ' ' }), nil
}

func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return `a duration such as "30s"`
	case t == reflect.TypeFor[*bool](), t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Uint64:
		return "a whole number"
	case t.Kind() == reflect.Slice:
		return "a list"
	}
	return "text"
}
