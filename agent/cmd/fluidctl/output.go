package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"
)

var formats = []string{"table", "json", "yaml"}

// table writes v for people: lines of cells separated by tabs.
type table[T any] func(w io.Writer, v T)

// printAs writes v in the format that --output asks for.
func printAs[T any](c *ctl, v T, t table[T]) error {
	switch c.output {
	case "json":
		enc := json.NewEncoder(c.stdout)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "yaml":
		return writeYAML(c.stdout, v)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	t(w, v)
	return w.Flush()
}

// writeYAML writes the JSON form of v as YAML, with the names and the order of
// the JSON: every JSON text is a YAML text in flow style.
func writeYAML(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return err
	}
	var block func(n *yaml.Node)
	block = func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
			n.Style = 0 // quoted by the encoder where it must be
		} else if len(n.Content) > 0 {
			n.Style &^= yaml.FlowStyle
		}
		for _, child := range n.Content {
			block(child)
		}
	}
	block(&doc)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	return errors.Join(enc.Encode(&doc), enc.Close())
}

// row writes the cells of one line; empty ones show as "-".
func row(w io.Writer, cells ...any) {
	var b bytes.Buffer
	for i, c := range cells {
		if i > 0 {
			b.WriteByte('\t')
		}
		s := strings.ReplaceAll(fmt.Sprint(c), "\n", " ")
		if s == "" {
			s = "-"
		}
		b.WriteString(s)
	}
	_, _ = fmt.Fprintln(w, b.String()) // the tabwriter keeps its first error for Flush
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
